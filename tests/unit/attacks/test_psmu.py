from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fedbench.attacks.psmu import SyntheticMaliciousUsers
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


class Fixed(SyntheticMaliciousUsers):
    """One synthetic user, u = 1, with item 3 as its profile."""

    def draw(self, view: AttackerView) -> tuple[torch.Tensor, torch.Tensor]:
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


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("m", [1, 3])
def test_the_fit_equals_an_optimiser_for_each_client(model: str, m: int, make_view: MakeView) -> None:
    attack, view = psmu(**SMALL), make_view(SyntheticMaliciousUsers.card, model, m)
    positives, negatives = attack.draw(view)
    fitted = attack.fit(make_view(SyntheticMaliciousUsers.card, model, m), positives, negatives)
    start = torch.randn(m, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    for n in range(m):
        u = start[n].clone().requires_grad_()
        adam = torch.optim.Adam([u], lr=0.05)
        for _ in range(8):
            adam.zero_grad()
            loss = torch.zeros(())
            for item in positives[n].tolist():
                loss = (
                    loss - F.logsigmoid(view.model.logits(view.params.dense, u[None], view.params.items[item][None]))[0]
                )
            for item in negatives[n].tolist():
                loss = (
                    loss
                    - F.logsigmoid(-view.model.logits(view.params.dense, u[None], view.params.items[item][None]))[0]
                )
            (loss / 12).backward()
            adam.step()
        assert torch.allclose(fitted[n], u, atol=1e-5)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
@pytest.mark.parametrize("margin", ["probability", "logit"])
def test_uploads_equal_a_plain_loop_over_clients(
    model: str, targets: tuple[int, ...], margin: str, make_view: MakeView
) -> None:
    attack = psmu(**SMALL, margin=margin)
    updates = attack.craft(make_view(attack.card, model, 3, targets, seed=SEED))
    view = make_view(attack.card, model, 3, targets, seed=SEED)  # the same draws once more
    positives, negatives = attack.draw(view)
    users = attack.fit(view, positives, negatives)
    made, stacked = rows_of(updates, targets), updates.dense.stacked()
    dropped = 0
    for n in range(3):
        dense = {name: value.clone().requires_grad_() for name, value in view.params.dense.items()}
        vectors = {t: view.params.items[t].clone().requires_grad_() for t in targets}

        def probability(item: int, n: int = n, dense: Any = dense, vectors: Any = vectors) -> torch.Tensor:
            vector = vectors.get(item, view.params.items[item])
            logit = view.model.logits(dense, users[n][None], vector[None])[0]
            return torch.sigmoid(logit) if margin == "probability" else logit

        unseen = [item for item in range(20) if item not in positives[n].tolist()]
        listed = sorted(unseen, key=lambda item: -float(probability(item).detach()))[:6]
        dropped += len(set(listed) & set(targets))
        loss = torch.zeros(())
        for t in targets:
            for j in listed:
                if j not in targets:
                    loss = loss + torch.sigmoid(probability(j) - probability(t))
        grads = torch.autograd.grad(loss, [*vectors.values(), *dense.values()])
        assert torch.allclose(made[n], torch.stack(grads[: len(targets)]), atol=1e-6)
        for name, value in zip(dense, grads[len(targets) :], strict=True):
            assert torch.allclose(stacked[name][n], value, atol=1e-6), name
    assert stacked.keys() == view.params.dense.keys()
    if len(targets) == 3:
        assert dropped  # the case in which a target is already listed is among these


@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
def test_profiles_are_distinct_hold_no_target_and_have_negatives_outside(
    targets: tuple[int, ...], make_view: MakeView
) -> None:
    attack = psmu(**SMALL)
    positives, negatives = attack.draw(make_view(attack.card, m=300, targets=targets))
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
    positives, negatives = psmu().draw(view)

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
