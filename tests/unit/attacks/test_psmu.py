from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fedbench.attacks.psmu import PopularSyntheticUsers, SyntheticMaliciousUsers
from fedbench.entries.cards import identifying
from fedbench.errors import UserError
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
SEED = 1  # at which a synthetic user is recommended a target among three, on both models
SMALL: dict[str, Any] = {"profile_size": 4, "negatives": 2, "list_size": 6, "fit_steps": 8}


def psmu(**params: Any) -> SyntheticMaliciousUsers:
    return SyntheticMaliciousUsers(SyntheticMaliciousUsers.Params(**params))


def rows_of(updates: Updates, targets: tuple[int, ...]) -> torch.Tensor:
    """float32 [m, T, d]: the only rows there are."""
    rows = updates.all_rows()
    m, count = len(updates.clients), len(targets)
    assert rows.client.tolist() == [c for c in range(m) for _ in range(count)]
    assert rows.item.tolist() == list(targets) * m
    return rows.values.view(m, count, -1)


ALL_MODELS = ["mf", "ncf", "lightgcn", "vncf", "lightvgcn"]


def own_graph(view: AttackerView, u: torch.Tensor, profile: list[int]) -> torch.Tensor:
    """The user as its own star graph propagates it: u, in models that have none."""
    if not view.model.card.name.startswith("light"):
        return u
    given = torch.zeros_like(u)
    for item in profile:
        given = given + view.params.items[item]
        if view.params.features is not None:
            given = given + view.params.dense["E"] @ view.params.features[item]
    return u + len(profile) ** -0.5 * given


def score(
    view: AttackerView, u: torch.Tensor, v: torch.Tensor, item: int, dense: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """The logit of a user and the row ``v`` of an item."""
    if view.params.features is not None:
        v = torch.cat([v, view.params.features[item]])
    return view.model.logits(view.params.dense if dense is None else dense, u[None], v[None])[0]


class Fixed(SyntheticMaliciousUsers):
    """One synthetic user, u = 1, with item 3 as its profile."""

    def draw(self, view: AttackerView, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([[3]]), torch.tensor([[0]])

    def fit(self, view: AttackerView, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        return torch.tensor([[1.0]])


@pytest.mark.parametrize("list_size", [2, 3])
@pytest.mark.parametrize(("margin", "slope"), [("probability", -0.1219613), ("logit", -0.3016057)])
def test_one_client_on_mf_by_hand(list_size: int, margin: str, slope: float, make_view: MakeView) -> None:
    # Logits: target 0, items 1 and 2 have 1 and 2, item 3 (9) is in the profile, item 4 has -1. The list is {2, 1}; at
    # length 3 the target is in it and drops out. r = 1/2, .731059, .880797; a = .231059, .380797; the slopes
    # sigma(a)(1 - sigma(a)) are .246693 and .241152, times r_t (1 - r_t) = 1/4.
    # On logits a = 1 and 2: the slopes are .196612 and .104994.
    params = PublicParams(torch.tensor([[0.0], [1.0], [2.0], [9.0], [-1.0]]), {})
    view = make_view(Fixed.card, m=1, targets=(0,), num_items=5, embedding_size=1, params=params)
    attack = Fixed(Fixed.Params(list_size=list_size, margin=margin))
    assert torch.allclose(rows_of(attack.craft(view), (0,)), torch.tensor([[[slope]]]), atol=1e-6)


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("m", [1, 3])
def test_the_fit_equals_an_optimiser_for_each_client(model: str, m: int, make_view: MakeView) -> None:
    attack, view = psmu(**SMALL), make_view(SyntheticMaliciousUsers.card, model, m)
    positives, negatives = attack.draw(view, 3)
    fitted = attack.fit(make_view(SyntheticMaliciousUsers.card, model, m), positives, negatives)
    start = torch.randn(m, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    for n in range(m):
        u = start[n].clone().requires_grad_()
        adam = torch.optim.Adam([u], lr=0.05)
        for _ in range(8):
            adam.zero_grad()
            loss, mine = torch.zeros(()), positives[n].tolist()
            whole, back = own_graph(view, u, mine), own_graph(view, u, mine) is not u
            for item in mine:
                v = view.params.items[item]
                loss = loss - F.logsigmoid(score(view, whole, v + len(mine) ** -0.5 * u if back else v, item))
            for item in negatives[n].tolist():
                loss = loss - F.logsigmoid(-score(view, whole, view.params.items[item], item))
            (loss / 12).backward()
            adam.step()
        assert torch.allclose(fitted[n], u, atol=1e-5)


@pytest.mark.parametrize("model", ALL_MODELS)
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
@pytest.mark.parametrize("margin", ["probability", "logit", "softplus"])
def test_uploads_equal_a_plain_loop_over_clients(
    model: str, targets: tuple[int, ...], margin: str, make_view: MakeView
) -> None:
    attack = psmu(**SMALL, margin=margin)
    updates = attack.craft(make_view(attack.card, model, 3, targets, seed=SEED))
    view = make_view(attack.card, model, 3, targets, seed=SEED)  # the same draws once more
    positives, negatives = attack.draw(view, 3)
    users = attack.fit(view, positives, negatives)
    made, stacked = rows_of(updates, targets), updates.dense.stacked()
    dropped = 0
    for n in range(3):
        u = own_graph(view, users[n], positives[n].tolist())
        dense = {name: value.clone().requires_grad_() for name, value in view.params.dense.items()}
        vectors = {t: view.params.items[t].clone().requires_grad_() for t in targets}

        def probability(item: int, u: Any = u, dense: Any = dense, vectors: Any = vectors) -> torch.Tensor:
            logit = score(view, u, vectors.get(item, view.params.items[item]), item, dense)
            return torch.sigmoid(logit) if margin == "probability" else logit

        unseen = [item for item in range(20) if item not in positives[n].tolist()]
        listed = sorted(unseen, key=lambda item: -float(probability(item).detach()))[:6]
        dropped += len(set(listed) & set(targets))
        loss = torch.zeros(())
        for t in targets:
            for j in listed:
                if j not in targets:
                    lag = probability(j) - probability(t)
                    loss = loss + (torch.log1p(torch.exp(lag)) if margin == "softplus" else torch.sigmoid(lag))
        grads = torch.autograd.grad(loss, [*vectors.values(), *dense.values()])
        assert torch.allclose(made[n], torch.stack(grads[: len(targets)]), atol=1e-6)
        for name, value in zip(dense, grads[len(targets) :], strict=True):
            size = max(1.0, float(value.abs().max()))  # a sum that cancels is rounded like those beside it
            assert torch.allclose(stacked[name][n], value, atol=1e-6 * size), name
    assert stacked.keys() == view.params.dense.keys()
    if len(targets) == 3 and model in ("mf", "ncf"):
        assert dropped  # the case in which a target is already listed is among these


@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
def test_profiles_are_distinct_hold_no_target_and_have_negatives_outside(
    targets: tuple[int, ...], make_view: MakeView
) -> None:
    attack = psmu(**SMALL)
    positives, negatives = attack.draw(make_view(attack.card, m=300, targets=targets), 300)
    assert positives.shape == (300, 4)
    assert negatives.shape == (300, 8)
    for mine, others in zip(positives.tolist(), negatives.tolist(), strict=True):
        assert len(set(mine)) == 4
        assert not set(mine) & set(targets)
        assert not set(mine) & set(others)
    assert set(positives.flatten().tolist()) == set(range(20)) - set(targets)
    assert set(negatives.flatten().tolist()) == set(range(20))


def test_every_round_has_new_synthetic_users_and_nothing_else_is_kept(make_view: MakeView) -> None:
    attack, view = psmu(**SMALL), make_view(SyntheticMaliciousUsers.card, "ncf")
    first, second = (rows_of(attack.craft(view), (7,)) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(rows_of(attack.craft(make_view(attack.card, "ncf")), (7,)), first)


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_after_a_hundred_steps_the_fit_has_flattened(model: str, make_view: MakeView) -> None:
    view = make_view(SyntheticMaliciousUsers.card, model, 4, num_items=300, embedding_size=8, hidden=(8, 8))
    positives, negatives = psmu().draw(view, 4)

    def loss(steps: int) -> float:
        again = make_view(SyntheticMaliciousUsers.card, model, 4, num_items=300, embedding_size=8, hidden=(8, 8))
        users = psmu(fit_steps=steps).fit(again, positives, negatives)
        items = torch.cat([positives, negatives], dim=1)
        logits = view.model.logits(view.params.dense, users[:, None].expand(4, 150, 8), view.params.items[items])
        label = torch.zeros(4, 150)
        label[:, :30] = 1
        return float(F.binary_cross_entropy_with_logits(logits, label))

    gained, left = loss(1) - loss(100), loss(100) - loss(400)
    assert gained > 0.02
    assert abs(left) < 0.02 * gained


def test_a_catalogue_too_small_for_a_profile_and_a_list_is_one_line(make_view: MakeView) -> None:
    view = make_view(SyntheticMaliciousUsers.card, targets=(1, 2), in_round=False)
    with pytest.raises(UserError, match=r"profile_size \+ list_size = 19 must not exceed the 18 items"):
        psmu(profile_size=14).start(view)
    psmu(profile_size=13).start(view)


def test_popular_profiles_follow_the_number_of_interactions(make_view: MakeView) -> None:
    popularity = torch.zeros(20, dtype=torch.int64)
    popularity[[1, 2, 3]] = torch.tensor([1, 2, 4])
    popularity[7] = 100  # the target
    attack = PopularSyntheticUsers(PopularSyntheticUsers.Params(profile_size=1))
    positives, _ = attack.draw(make_view(attack.card, item_popularity=popularity), 7000)
    counts = torch.bincount(positives.flatten(), minlength=20)
    assert counts[[1, 2, 3]].tolist() == pytest.approx([1000, 2000, 4000], rel=0.1)
    assert counts.sum() - counts[[1, 2, 3]].sum() < 10
    attack = PopularSyntheticUsers(PopularSyntheticUsers.Params(profile_size=5))
    positives, _ = attack.draw(make_view(attack.card, item_popularity=popularity), 50)
    assert all({1, 2, 3} < set(mine) and len(set(mine)) == 5 and 7 not in mine for mine in positives.tolist())


def test_mined_profiles_are_of_the_items_that_moved_most(make_view: MakeView) -> None:
    attack = psmu(**SMALL | {"profile_size": 3}, profiles="mined", mined_share=0.2)
    view = make_view(attack.card, m=1)
    first = attack.draw(view, 40)[0]
    attack.make_up(view, 1)
    assert set(first.flatten().tolist()) > {9, 11, 13, 15}, "nothing has been seen to move yet"
    assert len(set(first.flatten().tolist())) == 19
    moved = view.params.items.clone()
    moved[[9, 11, 13, 15, 7]] += torch.tensor([1.0, 2.0, 3.0, 4.0, 99.0])[:, None]
    later = make_view(attack.card, m=1, params=PublicParams(moved, {}))
    attack.make_up(later, 1)
    assert set(attack.draw(later, 40)[0].flatten().tolist()) == {9, 11, 13, 15}
    moved = moved.clone()
    moved[3] += 3.5
    attack.make_up(make_view(attack.card, m=1, params=PublicParams(moved, {})), 1)
    assert set(attack.draw(later, 40)[0].flatten().tolist()) == {3, 11, 13, 15}


def test_what_psmu_computed_before_it_had_these_parameters_keeps_its_id() -> None:
    params = identifying(SyntheticMaliciousUsers.Params())
    assert params.keys() == {
        "profile_size", "negatives", "list_size", "fit_steps", "fit_lr", "init_std", "margin"
    }  # fmt: skip
    assert identifying(SyntheticMaliciousUsers.Params(profiles="mined"))["profiles"] == "mined"


def test_popularity_must_be_known(make_view: MakeView) -> None:
    attack = psmu(profiles="popularity")
    with pytest.raises(UserError, match="profiles = 'popularity' needs to know item_popularity"):
        attack.start(make_view(attack.card, num_items=60, in_round=False))
