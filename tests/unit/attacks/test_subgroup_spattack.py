from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from federations import small_federation
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.attacks.subgroup_spattack import SubgroupSpattack, mean_rank, relevant
from fedbench.errors import ThreatModelViolation, UserError
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
SMALL: dict[str, Any] = {"surrogates": 2, "similar": 2, "fit_steps": 3, "fit_rate": 0.05, "margin": 2.0}


def started(view: AttackerView, **params: Any) -> SubgroupSpattack:
    made = SubgroupSpattack(SubgroupSpattack.Params(**(SMALL | params)))
    made.start(view)
    return made


def row_of(updates: Updates, client: int, item: int) -> torch.Tensor:
    rows = updates.all_rows()
    (found,) = rows.values[(rows.client == client) & (rows.item == item)]
    return found


def test_what_is_near_the_subgroups_items_by_hand(make_view: MakeView) -> None:
    """The mean of (1, 0) and (1, 1) is (1, 1/2): nearest are item 4 (2, 1) and then item 2 (3, 0); item 3 is the target."""
    items = torch.tensor([[1.0, 0.0], [1.0, 1.0], [3.0, 0.0], [2.0, 1.0], [2.0, 1.0], [0.0, -1.0]])
    options: dict[str, Any] = {"num_items": 6, "embedding_size": 2, "targets": (3,), "m": 1}
    view = make_view(SubgroupSpattack.card, subgroup_items=(0, 1), params=PublicParams(items, {}), **options)
    assert relevant(view, 2).tolist() == [0, 1, 4, 2]
    # For (1, 0) two items score above the target's 2, the one with 3 and none of its equals; for (0, 1) none above 1.
    assert mean_rank(view, torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])).tolist() == [0.5]


def test_one_surrogate_of_each_side_on_mf_by_hand(make_view: MakeView) -> None:
    """Without a fit and with one dimension: g and o are as drawn, the target is 0, and so all chances are one half."""
    params = PublicParams(torch.tensor([[1.0], [0.0], [-1.0]]), {})
    options: dict[str, Any] = {"num_items": 3, "embedding_size": 1, "targets": (1,), "m": 1, "params": params}
    view = make_view(SubgroupSpattack.card, subgroup_items=(0,), **options)
    attack = started(view, surrogates=1, similar=0, fit_steps=0, weights="equal", alignment=0.0)
    g, o = (torch.randn((2, 1, 1, 1), generator=torch.Generator().manual_seed(0)) * 0.01).flatten().tolist()
    assert row_of(attack.craft(view), 0, 1).item() == pytest.approx(-g / 2 + o / 2)


@pytest.mark.parametrize("model", ["mf", "ncf", "vncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 4)])
@pytest.mark.parametrize("weights", ["adaptive", "equal"])
def test_uploads_equal_a_plain_loop_over_clients(
    make_view: MakeView, model: str, targets: tuple[int, ...], weights: str
) -> None:
    """In the second round of the same clients; item 4 is the subgroup's and, at times, a target."""
    options: dict[str, Any] = {"model": model, "targets": targets, "m": 2}
    attack = started(make_view(SubgroupSpattack.card, **options), weights=weights, horizon=3.0, growth=0.1)
    attack.craft(make_view(SubgroupSpattack.card, seed=5, **options))
    view = make_view(SubgroupSpattack.card, seed=6, **options)
    updates = attack.craft(view)
    params, stacked = view.params, updates.dense.stacked()
    own = [j for j in (1, 4, 9) if j not in targets]
    middle = sum(params.items[j] for j in own) / len(own)
    free = [j for j in range(20) if j not in own and j not in targets]
    liked = own + sorted(free, key=lambda j: -float(F.cosine_similarity(params.items[j], middle, dim=0)))[:2]
    free = [j for j in range(20) if j not in liked and j not in targets]
    g = torch.Generator().manual_seed(6)
    drawn = torch.randn(2, 2, 2, 4, generator=g) * 0.01
    random = [torch.randint(len(free), (4, len(liked)), generator=g) for _ in range(3)]

    def score(dense: Any, u: torch.Tensor, v: torch.Tensor, item: int) -> torch.Tensor:
        v = v if params.features is None else torch.cat([v, params.features[item]])
        return view.model.logits(dense, u[None], v[None])[0]

    def fixed(u: torch.Tensor, item: int) -> torch.Tensor:
        return score(params.dense, u, params.items[item], item)

    for c in range(2):
        both = drawn[:, c].clone().requires_grad_()
        adam = torch.optim.Adam([both], lr=0.05)
        for step in range(3):
            loss = torch.zeros(())
            for i in range(2):
                marks = [(j, 1.0) for j in liked] + [(j, -1.0) for j in targets]
                loss = loss - sum(F.logsigmoid(s * fixed(both[0, i], j)) for j, s in marks) / len(marks) / 2
                others = [free[int(place)] for place in random[step][2 * c + i]]
                loss = loss - sum(F.logsigmoid(fixed(both[1, i], j)) for j in others) / len(others) / 2
                loss = loss + sum(max(0, 2 - (both[0, i] - both[1, j]).norm()) ** 2 / 2 for j in range(2)) / 4
            adam.zero_grad()
            loss.backward()
            adam.step()
        sides = both.detach()
        up, down = 1.0, 1.0
        if weights == "adaptive":
            ranks = [
                sum(sum(fixed(u, j) > fixed(u, targets[0]) for j in range(20)) for u in side) / 2 for side in sides
            ]
            f = (2 / 3) ** 2
            up, down = 1 + float(ranks[0] / sum(ranks)) * f + 0.1 * 2, 1 - float(ranks[1] / sum(ranks)) * f
        rows = {t: params.items[t].clone().requires_grad_() for t in targets}
        dense = {name: value.clone().requires_grad_() for name, value in params.dense.items()}
        loss = torch.zeros(())
        for t, row in rows.items():
            for i in range(2):
                loss = loss - up * F.logsigmoid(score(dense, sides[0, i], row, t)) / 2 / len(targets)
                loss = loss - down * F.logsigmoid(-score(dense, sides[1, i], row, t)) / 2 / len(targets)
            for k in liked:
                cosine = F.cosine_similarity(row, params.items[k], dim=0)
                loss = loss + 0.1 * (1 - cosine) / len(liked) / len(targets)
        grads = torch.autograd.grad(loss, [*rows.values(), *dense.values()])
        for t, expected in zip(targets, grads, strict=False):
            assert torch.allclose(row_of(updates, c, t), expected, atol=1e-5)
        for name, expected in zip(dense, grads[len(targets) :], strict=True):
            assert torch.allclose(stacked[name][c], expected, atol=1e-5), name


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 99), rounds=st.integers(1, 6), horizon=st.floats(0.5, 5))
def test_others_are_never_promoted_to(make_view: MakeView, seed: int, rounds: int, horizon: float) -> None:
    """However long it lasts: with nobody in the subgroup, a step along the upload does not raise what others think."""
    view = make_view(SubgroupSpattack.card, m=1, seed=seed)
    attack = started(view, alignment=0.0, horizon=horizon)
    sides = torch.zeros(2, 1, 2, 4)
    sides[1] = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(seed))[:, :1]
    attack.fit = lambda view, users, liked: sides  # type: ignore[method-assign]
    for _ in range(rounds):
        row = row_of(attack.craft(make_view(SubgroupSpattack.card, m=1, seed=seed)), 0, 7)
    assert float(row @ sides[1, 0, 0]) >= 0


def test_what_it_needs_is_said_in_a_line(make_view: MakeView) -> None:
    with pytest.raises(UserError, match="similar = 17 must be fewer than the 16 items"):
        started(make_view(SubgroupSpattack.card), similar=17)
    with pytest.raises(UserError, match="every item of the subgroup is a target"):
        started(make_view(SubgroupSpattack.card, targets=(1, 4, 9)))
    other = SubgroupSpattack.card.__class__(**{**vars(SubgroupSpattack.card), "knowledge": frozenset()})
    with pytest.raises(ThreatModelViolation, match="subgroup_items"):
        _ = make_view(other).subgroup_items


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_it_runs_and_stays_finite(model: str) -> None:
    attack = SubgroupSpattack(SubgroupSpattack.Params(**SMALL))
    federation = small_federation(model, attack, num_malicious=4)
    for _ in range(2):
        federation.train_epoch()
    federation.check_finite()
