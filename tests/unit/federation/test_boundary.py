"""What no attack may do, each tried: the run ends with one line that says why, or no number moves."""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from federations import small_federation
from torch.overrides import TorchFunctionMode

from fedbench.attacks import Attack
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import AttackCard, Channel, DefenseCard, Goal, Knowledge, NoParameters, declared
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.modes import Modes
from fedbench.federation.rows import FullRows, PiecedRows, SharedRows
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.plugins import load_file
from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

CARD = AttackCard("cheat", "Cheats", "", Goal.PROMOTE, Channel.GRADIENT)
OWN = replace(CARD, knowledge=frozenset({Knowledge.OWN_DATA}))

Act = Callable[[AttackerView], Any]


def cheating(act: Act, card: AttackCard = CARD, **members: Any) -> Attack:
    """An attack that does something and uploads nothing, or the upload that ``act`` returns."""

    def craft(self: Attack, view: AttackerView) -> Updates:
        made = act(view)
        return made if isinstance(made, Updates | str) else Attack.craft(self, view)

    cls: type[Attack] = type("Cheating", (Attack,), {"card": card, "craft": craft, **members})
    return cls(NoParameters())


def trained(attack: Attack, model: str = "mf", **protocol: Any) -> Federation:
    federation = small_federation(
        model, attack, num_malicious=3, clients_per_round=100, malicious_clients="compromised", **protocol
    )
    federation.train_epoch()
    return federation


def nothing(view: AttackerView) -> Updates:
    return target_updates(view, torch.zeros(len(view.clients), 1, view.embedding_size))


class Liar(FullRows):
    """Says that it is tiny, and does not get smaller."""

    def norms(self) -> torch.Tensor:
        return torch.zeros(len(self.item))


def rows(change: Callable[[FullRows], Any]) -> Act:
    def act(view: AttackerView) -> Updates:
        made = nothing(view)
        block = made.rows[0]
        assert isinstance(block, FullRows)
        return replace(made, rows=(change(block),))

    return act


def swallowed(view: AttackerView) -> None:
    with contextlib.suppress(Exception):
        _ = view.item_popularity


def summed_otherwise(offset: float) -> Act:
    """All clients' own gradients of W1 are 1; the sum of h, of which they have none, is off by ``offset``."""

    def act(view: AttackerView) -> Updates:
        made = nothing(view)
        stacked = {name: value + (name == "W1") for name, value in made.dense.stacked().items()}
        total = {name: value.sum(0) + offset * (name == "h") for name, value in stacked.items()}
        return replace(made, dense=DenseGradients(lambda: total, lambda: stacked))

    return act


REFUSED: dict[str, tuple[Act, str]] = {
    "a refusal swallowed": (swallowed, "reached for 'item_popularity'"),
    "rows that lie": (rows(lambda r: Liar(r.client, r.item, r.values)), "a class that the engine does not know"),
    "an honest client blamed": (rows(lambda r: replace(r, client=r.client - 1)), "-1 to 1; it must be within 0 to 2"),
    "an item that is not": (rows(lambda r: replace(r, item=r.item + 40)), "it must be within 0 to 39"),
    "rows twice": (
        rows(lambda r: FullRows(r.client.repeat(2), r.item.repeat(2), r.values.repeat(2, 1))),
        "3 with a \\(client, item\\) that is there already",
    ),
    "another dtype": (rows(lambda r: replace(r, values=r.values.double())), "float64"),
    "a tensor with a class": (
        rows(lambda r: replace(r, values=torch.nn.Parameter(r.values))),
        "no plain torch.Tensor",
    ),
    "negative weights": (lambda v: replace(nothing(v), weights=-nothing(v).weights), "-1 among them"),
    "half a sample": (lambda v: replace(nothing(v), weights=nothing(v).weights / 2), "0.5 among them"),
    "more samples than there are": (lambda v: replace(nothing(v), weights=nothing(v).weights * 1e6), "1e\\+06 among"),
    "no number of samples": (lambda v: replace(nothing(v), weights=nothing(v).weights * torch.nan), "nan among"),
    "a gradient in common": (
        lambda v: replace(nothing(v), common=Common(torch.ones(40, v.embedding_size), torch.ones(3))),
        "not the gradient that the clients of this round have in common",
    ),
    "a sum of its own": (summed_otherwise(1.0), "a sum that is not that of the clients' own"),
    "a small one": (summed_otherwise(1e-4), "a sum that is not that of the clients' own"),
    "none at all": (summed_otherwise(torch.nan), "a sum that is not that of the clients' own"),
    "dense of another name": (
        lambda v: replace(nothing(v), dense=DenseGradients.of({"x": torch.ones(3)})),
        "other names",
    ),
    "no upload": (lambda v: "nothing", "no Updates"),
    "an exit": (lambda v: exit(0), "tried to end the process"),
    "a default dtype": (lambda v: torch.set_default_dtype(torch.float64), "changed how torch computes.*dtype"),
    "no gradients any more": (lambda v: torch.set_grad_enabled(False), "changed how torch computes.*grad"),
}


def test_rounding_in_a_sum_of_nothing_is_no_lie() -> None:
    trained(cheating(summed_otherwise(1e-6)), "ncf")


@pytest.mark.parametrize("name", REFUSED)
def test_what_ends_a_run(name: str) -> None:
    act, why = REFUSED[name]
    before = Modes.now()
    with pytest.raises(ThreatModelViolation, match=why):
        trained(cheating(act), "ncf")
    assert Modes.now() == before


def test_a_mode_that_looks_at_every_call_is_taken_off() -> None:
    class Zero(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return function(*args, **(kwargs or {}))

    before = Modes.now()
    with pytest.raises(ThreatModelViolation, match="changed how torch computes for everybody: functions"):
        trained(cheating(lambda view: Zero().__enter__()))
    assert Modes.now() == before


def storage(view: AttackerView) -> None:
    items = view.params.items
    torch.empty(0).set_(items.untyped_storage(), 0, items.shape, items.stride()).zero_()


def scores(view: AttackerView) -> None:
    view.model.score_all = lambda *_: torch.ones(1)  # type: ignore[method-assign]


WITHOUT_EFFECT: dict[str, Act] = {
    "data": lambda v: v.params.items.data.zero_(),
    "numpy": lambda v: v.params.items.numpy().fill(0),
    "storage": storage,
    "an entry of dense": lambda v: v.params.dense.update({k: -t for k, t in v.params.dense.items()}),  # type: ignore[attr-defined]
    "data of dense": lambda v: [value.data.zero_() for value in v.params.dense.values()],
    "model": scores,
    "targets": lambda v: v.targets.fill_(0),
    "clients": lambda v: v.clients.data.fill_(0),
    "what is kept": lambda v: atexit.unregister(v.params.items.data.zero_),
}


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_what_changes_nothing(name: str, model: str) -> None:
    quiet, federation = trained(cheating(lambda view: None), model), trained(cheating(WITHOUT_EFFECT[name]), model)
    assert torch.equal(federation.params.items, quiet.params.items)
    assert all(torch.equal(value, federation.params.dense[name]) for name, value in quiet.params.dense.items())
    assert torch.equal(federation.users, quiet.users)
    assert federation.task.targets.tolist() == [7]
    assert "score_all" not in vars(federation.model)


LENT: dict[str, Act] = {
    "updates": lambda v: v.honest().updates,
    "rows": lambda v: v.honest().updates.all_rows().values.data.zero_(),
    "factors": lambda v: (
        [
            value.data.zero_()
            for block in v.honest().updates.rows
            for value in vars(block).values()
            if value.dtype == torch.float32
        ]
    ),
    "clients": lambda v: v.honest().updates.clients.data.zero_(),
    "users": lambda v: v.honest().users.data.zero_(),
    "batch": lambda v: (v.own_batch.client.data.zero_(), v.honest()),
    "dense": lambda v: [value.data.zero_() for value in v.honest().updates.dense.stacked().values()],
}


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("adam", [True, False])
@pytest.mark.parametrize("name", [name for name in LENT if name != "updates"])
def test_what_its_own_clients_make_is_lent_as_copies(name: str, adam: bool, model: str) -> None:
    how = {"user_optimizer": "adam"} if adam else {}
    quiet = trained(cheating(lambda view: view.honest(), OWN), model, **how)
    federation = trained(cheating(LENT[name], OWN), model, **how)
    assert torch.equal(federation.params.items, quiet.params.items)
    assert torch.equal(federation.users, quiet.users)


@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
def test_honest_uploads_come_back_as_they_were(model: str) -> None:
    """A round of malicious clients that behave is, to the last bit, one before their attack begins."""
    behaving = trained(cheating(LENT["updates"], OWN), model)
    silent = trained(cheating(lambda view: None), model, attack_start=2)
    assert torch.equal(behaving.params.items, silent.params.items)
    assert all(torch.equal(value, behaving.params.dense[name]) for name, value in silent.params.dense.items())


def test_the_card_of_the_class_counts_as_it_was_first_read() -> None:
    def richer(self: Attack, params: Any) -> None:
        Attack.__init__(self, params)
        self.card = replace(CARD, knowledge=frozenset(Knowledge))  # type: ignore[misc]

    with pytest.raises(ThreatModelViolation, match="its card declares nothing"):
        trained(cheating(lambda view: view.item_popularity, __init__=richer))

    def mutated(self: Attack, params: Any) -> None:
        object.__setattr__(type(self).card, "knowledge", frozenset(Knowledge))

    cls = type(cheating(lambda view: None, replace(CARD)))
    declared(cls, AttackCard)
    cls.__init__ = mutated  # type: ignore[assignment,method-assign]
    with pytest.raises(ThreatModelViolation, match="changed its card after it was read"):
        trained(cls(NoParameters()))


def test_a_card_is_of_plain_values() -> None:
    class Richer(AttackCard):
        """Knows everything when asked."""

    with pytest.raises(UserError, match="must be a plain AttackCard"):
        trained(cheating(lambda view: None, Richer("a", "", "", Goal.PROMOTE, Channel.GRADIENT)))

    class Text(str):
        """A name that may be anything."""

    with pytest.raises(UserError, match="card: name must be plain text"):
        trained(cheating(lambda view: None, replace(CARD, name=Text("x"))))
    with pytest.raises(UserError, match="must be a plain DefenseCard"):
        declared(type("Odd", (), {"card": CARD}), DefenseCard)


@pytest.mark.parametrize("worst", [torch.nan, torch.inf, 1e38])
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_uploads_that_are_not_finite_are_left_out_and_counted(model: str, worst: float) -> None:
    def act(view: AttackerView) -> Updates:
        values = torch.zeros(len(view.clients), 1, view.embedding_size)
        values[0] = worst
        return target_updates(view, values)

    federation, quiet = trained(cheating(act), model), trained(cheating(lambda view: None), model)
    assert federation.refused == 1
    assert quiet.refused == 0
    assert torch.equal(federation.params.items, quiet.params.items)
    federation.check_finite()


def pieced(view: AttackerView, pieces: list[float]) -> Updates:
    """Each client sends one row of the target, made of these pieces, client by client in turn."""
    m = len(view.clients)
    place = torch.arange(m).repeat(len(pieces))
    coef = torch.tensor(pieces).repeat_interleave(m)
    values = torch.ones(len(place), view.embedding_size)
    rows = PiecedRows(torch.arange(m), view.targets.repeat(m), place, coef, values)
    return replace(nothing(view), rows=(rows,))


@pytest.mark.parametrize("pieces", [[3e38, -3e38, 0.0], [1e8, 3.0, -1e8], [1e8, -1e8, 1e-4]])
def test_pieces_that_cancel_out_add_up_as_the_rows_that_were_looked_at(pieces: list[float]) -> None:
    federation = trained(cheating(lambda view: pieced(view, pieces)))
    row = float(torch.tensor(pieces[0]) + pieces[1]) + pieces[2]
    quiet = trained(cheating(nothing))
    moved = (quiet.params.items - federation.params.items)[7]
    assert torch.allclose(moved, torch.full_like(moved, 0.5 * 3 * row), atol=1e-4 * max(1.0, abs(row)))


@pytest.mark.parametrize("worst", [torch.nan, torch.inf])
def test_factors_of_refused_or_missing_rows_do_no_harm(worst: float) -> None:
    def act(view: AttackerView) -> Updates:
        empty = torch.zeros(0, dtype=torch.int64)
        table = torch.full((40, view.embedding_size), worst)
        made = nothing(view)
        one = SharedRows(torch.tensor([0]), torch.tensor([3]), torch.ones(1), table)
        return replace(made, rows=(*made.rows, SharedRows(empty, empty, torch.zeros(0), table), one))

    federation = trained(cheating(act))
    assert federation.refused == 1
    assert torch.equal(federation.params.items, trained(cheating(lambda view: None)).params.items)


@pytest.mark.parametrize(
    ("profiles", "why"),
    [
        (lambda m: Profiles(torch.tensor([m]), torch.tensor([0])), "client .* within 0 to 2"),
        (lambda m: Profiles(torch.tensor([0]), torch.tensor([-1])), "item .* within 0 to 39"),
        (
            lambda m: Profiles(torch.tensor([0, 0]), torch.tensor([1, 1])),
            "1 with a \\(client, item\\) that is there already",
        ),
        (lambda m: [0], "no Profiles"),
    ],
)
def test_profiles_are_checked(profiles: Callable[[int], Any], why: str) -> None:
    attack = cheating(lambda view: None, profiles=lambda self, view: profiles(view.num_malicious))
    with pytest.raises(ThreatModelViolation, match=why):
        small_federation(attack=attack, num_malicious=3)


def test_gradients_of_other_clients_are_not_those_of_the_sampled_ones() -> None:
    def act(view: AttackerView) -> Updates:
        return replace(nothing(view), dense=view.colluding(2).dense)

    with pytest.raises(ThreatModelViolation, match=r"dense .* gradients of 2 clients; 3 of its were sampled"):
        trained(cheating(act, OWN), "ncf")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda b: replace(b, weight=b.weight * 1e9), "occurrences that no client can have"),
        (lambda b: replace(b, item=b.item + 40), "within 0 to 39"),
        (lambda b: replace(b, client=b.client.flip(0)), "clients out of order"),
        (lambda b: None, "no Batch"),
    ],
)
def test_rows_that_an_attack_trains_on_are_checked(change: Callable[[Any], Any], why: str) -> None:
    with pytest.raises(ThreatModelViolation, match=why):
        trained(cheating(lambda view: view.trained(change(view.own_batch)), OWN))


PATCH = '''
from fedbench.attacks import Attack
from fedbench.cards import AttackCard, Channel, Goal
import fedbench.evaluation.evaluator as evaluator
import fedbench.runs.run as runs


class Patching(Attack):
    """Formula: none."""

    card = AttackCard(name="{name}", title="Patches", paper="none", goal=Goal.PROMOTE, channel=Channel.GRADIENT)

    def start(self, view):
        {patch}
'''
PATCHES = {
    "evaluator": ("evaluator.Evaluator.__call__ = lambda *_: {'er_10': 1.0}", "evaluator.Evaluator.__call__"),
    "summary": ("runs.summarize_curve = lambda *_: {}", "run.summarize_curve"),
    "code": ("runs.summarize_curve.__code__ = (lambda curve, epochs: {}).__code__", "summarize_curve"),
    "builtin": ("evaluator.len = lambda _: 1", "evaluator.len"),
}


@pytest.mark.parametrize("name", PATCHES)
def test_code_that_computes_a_run_is_not_to_be_replaced(name: str, tmp_path: Path) -> None:
    patch, what = PATCHES[name]
    file = tmp_path / "patching.py"
    file.write_text(PATCH.format(name=f"patching-{name}", patch=patch))
    attack = load_file(file, "attack").name
    scenario = Scenario("longtail-small", "mf", attack=attack, malicious_ratio=0.05, protocol_params={"epochs": 1})
    record = run(scenario, 0)
    assert record.status == "failed"
    assert record.error is not None
    assert f"{what} was replaced while the run was under way" in record.error
    assert run(replace(scenario, attack="none", malicious_ratio=0.0), 0).status == "ok"


def test_what_torch_changes_of_itself_is_no_replacement() -> None:
    """Optimizers load the compiler, which wraps functions of torch's own."""
    scenario = Scenario("longtail-small", "mf", attack="pipattack", malicious_ratio=0.05, protocol_params={"epochs": 1})
    record = run(scenario, 0)
    assert (record.status, record.error) == ("ok", None)
