"""The contract of a defense, as checks that anyone can run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fedbench.attacks.explicit_boost import ExplicitBoost
from fedbench.defenses.none import NoDefense
from fedbench.federation import server as plain
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ClientRegularization, Defense, ServerView, card_of
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Updates
from fedbench.models import MODELS, LocalStep, PublicParams
from fedbench.testing.federations import small_federation, small_task, tried_models
from fedbench.testing.finding import (
    Budget,
    Finding,
    Stop,
    Trials,
    check_global_state,
    check_identity,
    check_memory,
    check_time,
    global_state,
    measured,
    source_file,
)
from fedbench.testing.models import separation
from fedbench.testing.showing import Painter, Purifying, check_purified, seeing
from fedbench.testing.watching import Untouched, tensors_of

USERS, ITEMS, MANY = 60, 200, 40
EPOCHS = 2
ROUNDS = 3
"""So many are timed; the quickest counts."""
WHOLE = 10
RATIO = 0.1
"""Share of malicious clients that a defense is told, where its card lets it be told one."""
TOLERANCE = 1e-4
"""Relative to the largest number: sums in another order differ by rounding."""
LOSS = 0.05
"""By so much the separation of a user's items from others may fall in undisturbed training before it is a collapse."""


@dataclass
class Seen:
    """Whether the defense asked for the share of malicious clients."""

    asked: bool = False


class WatchedServer(ServerView):
    """What the server may use, with a note of what is asked of it."""

    _seen: Seen
    _declared: bool

    @classmethod
    def of(cls, view: ServerView, seen: Seen, declared: bool) -> WatchedServer:
        """The same view, watched."""
        values = {each.name: getattr(view, each.name) for each in dataclasses.fields(ServerView)}
        watched = cls(**values)
        object.__setattr__(watched, "_seen", seen)
        object.__setattr__(watched, "_declared", declared)
        return watched

    def __getattribute__(self, name: str) -> Any:
        if name == "malicious_ratio" and "_seen" in super().__getattribute__("__dict__"):
            self._seen.asked = True
            if not self._declared:
                raise Stop("threat model", "it asked for server.malicious_ratio, which the card does not declare")
        return super().__getattribute__(name)


class WatchedDefense(Defense):
    """``inner``, watched at every call; a check that fails raises :class:`Stop`."""

    def __init__(self, inner: Defense, seen: Seen) -> None:
        self.inner, self.seen = inner, seen
        self.params, self.card = inner.params, card_of(inner)
        self.on_flag = inner.on_flag

    def regularize(
        self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> ClientRegularization | None:
        with self._watched("regularize()", server, params=params, users=users, batch=batch) as view:
            return self.inner.regularize(params, users, batch, view)

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        with self._watched("client_update()", server, local=local, params=params, users=users, batch=batch) as view:
            return self.inner.client_update(local, params, users, batch, view)

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        before, untouched = global_state(), Untouched()
        untouched.add("pixels", pixels)
        made = self.inner.purify(pixels, generator)
        check_global_state(before, "purify()")
        untouched.check("purify()")
        check_purified(made, pixels)
        return made

    def see_images(self, pixels: torch.Tensor) -> None:
        before, untouched = global_state(), Untouched()
        untouched.add("pixels", pixels)
        self.inner.see_images(pixels)
        check_global_state(before, "see_images()")
        untouched.check("see_images()")

    def flags(self, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor | None:
        return self.inner.flags(similarity, known_clean)

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        with self._watched("filter()", server, updates=updates) as view:
            kept = self.inner.filter(updates, view)
        if not isinstance(kept, Updates):
            raise Stop("shapes", f"filter() returned {type(kept).__name__} instead of Updates")
        return kept

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams | None:
        with self._watched("aggregate()", server, updates=updates) as view:
            gradient = self.inner.aggregate(updates, view)
        if gradient is not None:
            check_gradient(gradient, server.params)
        return gradient

    @contextlib.contextmanager
    def _watched(self, where: str, server: ServerView, **given: object) -> Iterator[ServerView]:
        before, untouched = global_state(), Untouched()
        for name, value in {**given, "server.params": server.params}.items():
            untouched.add(name, value)
        yield WatchedServer.of(server, self.seen, "malicious_ratio" in self.card.knowledge)
        check_global_state(before, where)
        untouched.check(where)


def check_gradient(gradient: object, params: PublicParams) -> None:
    """Raise :class:`Stop` unless a gradient has the shapes of the parameters and finite numbers."""
    if not isinstance(gradient, PublicParams):
        raise Stop("shapes", f"aggregate() returned {type(gradient).__name__} instead of PublicParams or None")
    if set(gradient.dense) != set(params.dense):
        raise Stop("shapes", f"aggregate() gave dense gradients {sorted(gradient.dense)}, not {sorted(params.dense)}")
    for (name, value), (_, like) in zip(
        tensors_of("gradient", _sorted(gradient)), tensors_of("gradient", _sorted(params)), strict=True
    ):
        if value.shape != like.shape or value.dtype != like.dtype:
            raise Stop("shapes", f"{name} is {value.dtype} {list(value.shape)}, not {like.dtype} {list(like.shape)}")
        if not bool(torch.isfinite(value).all()):
            raise Stop("finite", f"{name} has NaN or infinite numbers")


def check_defense(
    cls: type[Defense], budget: Budget | None = None, models: list[str] | None = None
) -> Iterator[Finding]:
    """Every check of a defense, one after the other.

    It is tried with its default parameters in small federations, with and without attackers, on each model that its card
    declares (models of logits alone only where it names them); then on the uploads of one client, of many, and of the
    same in another order. All the while it is watched.

    Args:
        cls: the defense's class; it need not be registered. budget: of time and memory.
        models: names of models to try instead of all that the card declares.
    """
    findings = list(check_identity("defense", cls))
    yield from findings
    if not all(each.ok for each in findings):
        return
    trials, seen = Trials(source_file(cls)), Seen()
    declared = tried_models(cls.card.models)
    declared = [name for name in declared if not (cls.card.needs_users and MODELS.get(name).reads_sequences)]
    purifies = cls.purify is not Defense.purify
    declared = seeing(declared, purifies)
    declared = [name for name in declared if models is None or name in models] or declared[:1]
    for model in declared:
        with trials.trial(f"runs on {model}") as trial:
            _train(_federation(cls, model, seen, malicious=6), EPOCHS)
        yield trials.ran(
            trial, "Correct the error; dense gradients and item rows both arrive, and either may be empty."
        )
    first = declared[0]
    for name, count in (("one client", 1), ("many clients", MANY)):
        with trials.trial(name) as trial:
            _aggregated(cls, first, torch.arange(count), seen)
        yield trials.ran(
            trial, "A cohort may be of any size: fall back to the plain sum where a rule needs more clients."
        )
    yield _check_order(cls, first, trials)
    if purifies:
        yield from Purifying(cls, trials).findings()
    yield from _check_behaviour(cls, first, trials, seen)
    yield _check_whole(cls, first, trials)
    yield from _check_cost(cls, first, trials, budget or Budget())


def _federation(cls: type[Defense], model: str, seen: Seen | None, malicious: int = 0, **more: Any) -> Federation:
    defense = cls(cls.Params())
    pairwise = {"loss": "bpr"} if MODELS.get(model).reads_sequences else {}
    attacked = malicious and not MODELS.get(model).reads_sequences
    attack = Painter() if MODELS.get(model).reads_features else ExplicitBoost(ExplicitBoost.Params())
    size = {"num_users": more.pop("num_users", USERS), "num_items": more.pop("num_items", ITEMS)}
    return small_federation(
        model,
        attack if attacked else None,
        defense if seen is None else WatchedDefense(defense, seen),
        task=small_task(**size, num_malicious=malicious if attacked else 0),
        **{"learning_rate": 0.1, "clients_per_round": 20, **pairwise, **more},
    )


def _train(federation: Federation, epochs: int) -> None:
    for _ in range(epochs):
        federation.train_epoch()


def _sorted(params: PublicParams) -> PublicParams:
    return PublicParams(params.items, dict(sorted(params.dense.items())))


def _aggregated(
    cls: type[Defense], model: str, clients: torch.Tensor, seen: Seen
) -> tuple[PublicParams, torch.Generator]:
    """What becomes of the uploads of these honest clients, and the generator that the defense drew from."""
    defense = WatchedDefense(cls(cls.Params()), seen)
    federation = _federation(NoDefense, model, None)
    batch = federation.population.rows.select(clients)
    step = federation.model.local_step(
        federation.params, federation.users.index_select(0, clients), batch, federation.training.loss
    )
    updates = Updates(batch.clients, step.rows, step.dense, federation.model.samples(batch))
    generator = torch.Generator().manual_seed(0)
    ratio = RATIO if "malicious_ratio" in cls.card.knowledge else None
    view = ServerView(federation.params, 0.1, "sum", ratio, 1, 0, generator, model=federation.model)
    kept = defense.filter(updates, view)
    gradient = defense.aggregate(kept, view)
    if gradient is None:
        gradient = plain.aggregate(kept.settled(), federation.params, "sum")
        check_gradient(gradient, federation.params)
    return gradient, generator


def _difference(one: PublicParams, two: PublicParams) -> float:
    """The largest difference, relative to the largest number."""
    pairs = [
        (a, b)
        for (_, a), (_, b) in zip(tensors_of("", _sorted(one)), tensors_of("", _sorted(two)), strict=True)
        if a.numel()
    ]
    scale = max(float(a.abs().max()) for a, _ in pairs)
    return max(float((a - b).abs().max()) for a, b in pairs) / max(scale, 1e-12)


def _check_order(cls: type[Defense], model: str, trials: Trials) -> Finding:
    name = "order of clients"
    if trials.broken:
        return Finding(name, "skipped", "not every run came to an end")
    order = torch.randperm(MANY, generator=torch.Generator().manual_seed(1))
    untouched = torch.Generator().manual_seed(0).get_state()
    one, generator = _aggregated(cls, model, torch.arange(MANY), Seen())
    if not torch.equal(generator.get_state(), untouched):
        return Finding(name, "skipped", "it draws at random, and draws belong to places")
    two, _ = _aggregated(cls, model, order, Seen())
    difference = _difference(one, two)
    if difference <= TOLERANCE:
        return Finding(name, "ok", f"another order of the clients changes the result by {difference:.0e} of it")
    todo = "Clients arrive in random order: weigh them by what they send, not by where they stand."
    return Finding(name, "failed", f"another order of the clients changes the result by {difference:.1%} of it", todo)


def _check_behaviour(cls: type[Defense], model: str, trials: Trials, seen: Seen) -> Iterator[Finding]:
    declared = ", ".join(sorted(map(str, cls.card.knowledge))) or "nothing"
    yield trials.kept(
        "threat model",
        f"asked for nothing that the card does not declare ({declared})",
        "Declare knowledge=frozenset({'malicious_ratio'}) on the card, or assume a share as a parameter.",
    )
    if "malicious_ratio" in cls.card.knowledge and not seen.asked and not trials.broken:
        yield Finding(
            "declared knowledge",
            "warning",
            "malicious_ratio is declared and not used with default parameters",
            "Take it off the card unless other parameters need it.",
        )
    shapes, todo = "gradients have the shapes of the parameters", "Return PublicParams like server.params."
    if cls.purify is not Defense.purify:
        shapes, todo = (
            f"{shapes}, purified images those of images",
            f"{todo[:-1]}, and uint8 images like those received.",
        )
    yield trials.kept("shapes", shapes, todo)
    yield trials.kept(
        "finite",
        "no NaN or infinite number in a gradient",
        "Look for a division by a norm or a count that can be 0, or by a distance between equal uploads.",
    )
    yield trials.kept(
        "inputs unchanged",
        "uploads and parameters stay as they are",
        "Work on a copy: dataclasses.replace(updates, rows=...), a + b instead of a += b.",
    )
    yield trials.generators_kept()
    if trials.broken:
        yield Finding("deterministic", "skipped", "not every run came to an end")
        return
    params = []
    for _ in range(2):
        with trials.trial("again, with the same seed"):
            federation = _federation(cls, model, None, malicious=6)
            _train(federation, EPOCHS)
            params.append(federation.params)
    if len(params) == 2 and _difference(*params) == 0:
        yield Finding("deterministic", "ok", "the same seed gives the same parameters, bit for bit")
    else:
        todo = "Draw from server.generator only, and keep nothing in the class or the module."
        yield Finding("deterministic", "failed", "two runs with the same seed ended with different parameters", todo)


def _check_whole(cls: type[Defense], model: str, trials: Trials) -> Finding:
    name = "without attackers"
    if trials.broken:
        return Finding(name, "skipped", "not every run came to an end")
    federation = _federation(cls, model, None)
    pairs = federation.task.train_user, federation.task.train_item
    before = separation(federation, *pairs)
    _train(federation, WHOLE)
    after = separation(federation, *pairs)
    text = f"share of pairs ranked right, {before:.2f} before and {after:.2f} after {WHOLE} epochs"
    if federation.params.finite() and after >= before - LOSS:
        return Finding(name, "ok", text)
    return Finding(name, "failed", text, "With honest clients only, training must not get worse than it began.")


def _check_cost(cls: type[Defense], model: str, trials: Trials, budget: Budget) -> Iterator[Finding]:
    if trials.broken:
        yield from (Finding(name, "skipped", "not every run came to an end") for name in ("time", "memory"))
        return
    size: dict[str, Any] = {"num_users": 300, "num_items": 600, "clients_per_round": 300}
    loss = "bpr" if MODELS.get(model).reads_sequences else "bce"
    undefended = small_federation(model, task=small_task(300, 600), clients_per_round=300, learning_rate=0.1, loss=loss)
    defended = _federation(cls, model, None, **size)
    honest, _ = measured(undefended.train_epoch, ROUNDS)
    own, extra = measured(defended.train_epoch, ROUNDS)
    yield check_time(own, honest, budget, "for a round of 300 clients")
    yield check_memory(extra, budget)
