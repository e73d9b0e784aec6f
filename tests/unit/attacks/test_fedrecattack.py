from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from federations import small_federation

from fedbench.attacks.fedrecattack import NOISE_STD, DemotingRecAttack, FedRecAttack
from fedbench.errors import UserError
from fedbench.federation.view import AttackerView, PublicInteractions
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
PUBLIC = PublicInteractions(torch.tensor([0, 0, 1, 2, 4]), torch.tensor([3, 7, 5, 5, 2]), 5)


def started(attack: FedRecAttack, make_view: MakeView, **options: Any) -> AttackerView:
    options = {"public_interactions": PUBLIC, "targets": (7,)} | options
    attack.start(make_view(attack.card, in_round=False, **options))
    return make_view(attack.card, **options)


def plain_gradient(view: AttackerView, users: torch.Tensor, public: PublicInteractions, sign: float) -> torch.Tensor:
    """dL~/dV, one user and one target after the other; the sign is - for the attack that demotes."""
    items = view.params.items.clone().requires_grad_()
    loss = torch.zeros(())
    for u in range(public.num_users):
        known = set(public.item[public.user == u].tolist())
        hidden = known | set(view.targets.tolist())
        scores = view.model.score_all(view.params, users[u][None])[0]
        best = [j for j in scores.argsort(descending=True).tolist() if j not in hidden][:10]
        open_targets = [t for t in view.targets.tolist() if t not in known]
        for place, t in enumerate(open_targets):
            logits = view.model.logits(
                view.params.dense, users[u].expand(2, -1), items[[best[len(best) - 1 - place], t]]
            )
            x = sign * (logits[0] - logits[1])
            loss = loss + (x if x >= 0 else torch.exp(x) - 1)
    return torch.autograd.grad(loss, items)[0]


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
@pytest.mark.parametrize(("cls", "sign"), [(FedRecAttack, 1.0), (DemotingRecAttack, -1.0)])
def test_the_gradient_equals_a_plain_loop_over_users(
    make_view: MakeView, model: str, targets: tuple[int, ...], cls: type[FedRecAttack], sign: float
) -> None:
    attack = cls(cls.Params())
    view = started(attack, make_view, model=model, targets=targets)
    attack._users = torch.randn(5, 4, generator=torch.Generator().manual_seed(4))
    assert torch.allclose(attack._gradient(view), plain_gradient(view, attack._users, PUBLIC, sign), atol=1e-5)


def test_the_gradient_by_hand(make_view: MakeView) -> None:
    """One user (1, 0), twelve items: the list's last item is number 1 with a score of 0.1; the target scores 0.5."""
    items = torch.zeros(12, 2)
    items[1:11, 0] = torch.arange(1, 11) / 10
    items[11, 0] = 0.5
    view = make_view(
        FedRecAttack.card, targets=(11,), num_items=12, embedding_size=2, params=PublicParams(items, {}),
        public_interactions=PublicInteractions(torch.tensor([0]), torch.tensor([0]), 1),
    )  # fmt: skip
    attack = FedRecAttack(FedRecAttack.Params())
    attack.start(view)
    attack._users = torch.tensor([[1.0, 0.0]])
    slope = float(torch.exp(torch.tensor(0.1 - 0.5)))  # l'(x) = e^x for x = -0.4
    gradient = attack._gradient(view)
    assert gradient[11].tolist() == pytest.approx([-slope, 0])
    assert gradient[1].tolist() == pytest.approx([slope, 0])
    assert not gradient[2:11].any()


def test_users_take_steps_of_adam_on_bpr(make_view: MakeView) -> None:
    attack = FedRecAttack(FedRecAttack.Params(user_batch=5))
    view = started(attack, make_view, num_items=20)
    start = attack._users.clone()
    reference = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.Adam([reference], lr=0.01)
    for _ in range(3):
        state = view.generator.get_state()
        attack._train_users(view)
        after = view.generator.get_state()
        view.generator.set_state(state)
        from fedbench.federation.clients import draw_negatives

        negative = draw_negatives(attack._user, attack._item, 5, 20, 1, view.generator).squeeze(1)
        view.generator.set_state(after)
        loss = torch.zeros(())
        for u, p, n in zip(attack._user.tolist(), attack._item.tolist(), negative.tolist(), strict=True):
            loss = loss - torch.nn.functional.logsigmoid(reference[u] @ (view.params.items[p] - view.params.items[n]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert torch.allclose(attack._users, reference, atol=1e-5)
    assert torch.equal(attack._users[3], start[3])  # nothing of user 3 is public


@pytest.mark.parametrize("limit", [0.05, 0.3, 100.0])
def test_clients_share_the_gradient_out_in_pieces(make_view: MakeView, limit: float) -> None:
    attack = FedRecAttack(FedRecAttack.Params(row_limit=limit, items_limit=8, scaled_noise=False))
    view = started(attack, make_view, m=4)
    gradient = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    attack._choose_items(view, gradient)
    rows = attack._share_out(view, gradient).all_rows()
    assert rows.client.tolist() == sorted(rows.client.tolist())
    for item in set(rows.item.tolist()):
        pieces = rows.values[rows.item == item]
        holders, length = len(pieces), gradient[item].norm()
        noise = 6 * NOISE_STD
        assert bool((pieces.norm(dim=1) <= limit + noise * 2).all())
        expected = gradient[item] / length * min(float(length), holders * limit)
        assert torch.allclose(pieces.sum(0), expected, atol=noise * holders)
        sizes = pieces.norm(dim=1)
        assert bool((sizes[:-1] >= sizes[1:] - 2 * noise).all())  # the first holders take the most
    assert (rows.item == 7).sum() == 4


def test_in_turn_a_new_client_draws_from_what_earlier_ones_left(make_view: MakeView) -> None:
    # C is longer than any row: who holds an item takes all of it, so nobody after draws it again. 3 x 5 + target = 16 of 20.
    attack = FedRecAttack(FedRecAttack.Params(row_limit=100.0, items_limit=6, in_turn=True))
    view = started(attack, make_view, m=3)
    attack._choose_items(view, torch.randn(20, 4, generator=torch.Generator().manual_seed(3)))
    drawn = attack._items[view.clients, 1:].flatten().tolist()
    assert len(set(drawn)) == len(drawn) == 15
    assert 7 not in drawn


@pytest.mark.parametrize("limit", [0.05, 0.4, 100.0])
def test_in_turn_agrees_with_clients_one_by_one(make_view: MakeView, limit: float) -> None:
    """What is left of the gradient when a client draws: the gradient less the pieces of those before it."""
    attack = FedRecAttack(FedRecAttack.Params(row_limit=limit, items_limit=8, in_turn=True))
    view = started(attack, make_view, m=4)
    gradient = torch.randn(20, 4, generator=torch.Generator().manual_seed(3))
    seen: list[torch.Tensor] = []
    chance = attack._chance
    attack._chance = lambda view, left: (seen.append(left.clone()), chance(view, left))[1]  # type: ignore[method-assign, func-returns-value]
    attack._choose_items(view, gradient)
    assert len(seen) == 4
    left = gradient.clone()
    for before, items in zip(seen, attack._items[view.clients].tolist(), strict=True):
        assert torch.allclose(before, left, atol=1e-6)
        for item in items:
            left[item] -= left[item] * min(1.0, limit / max(float(left[item].norm()), 1e-12))


def test_noise_that_is_scaled_is_c_times_as_long(make_view: MakeView) -> None:
    spreads = []
    for scaled in (False, True):
        attack = FedRecAttack(FedRecAttack.Params(row_limit=0.01, items_limit=20, scaled_noise=scaled))
        view = started(attack, make_view, m=4)
        attack._choose_items(view, torch.zeros(20, 4))
        spreads.append(float(attack._share_out(view, torch.zeros(20, 4)).all_rows().values.std()))
    assert spreads[0] == pytest.approx(NOISE_STD, rel=0.2)
    assert spreads[1] == pytest.approx(NOISE_STD * 0.01, rel=0.2)


def test_items_are_fixed_from_a_clients_first_round(make_view: MakeView) -> None:
    attack = FedRecAttack(FedRecAttack.Params(items_limit=6))
    options: dict[str, Any] = {"num_malicious": 5}
    first = attack.craft(started(attack, make_view, clients=[1, 3], **options)).all_rows()
    again = attack.craft(
        make_view(attack.card, clients=[3, 4], round=1, targets=(7,), public_interactions=PUBLIC, seed=9, **options)
    ).all_rows()
    assert set(first.item[first.client == 1].tolist()) == set(again.item[again.client == 0].tolist())
    for client in (0, 1):
        mine = first.item[first.client == client].tolist()
        assert len(mine) == len(set(mine)) == 6
        assert 7 in mine


def test_without_public_interactions_nothing_is_uploaded(make_view: MakeView) -> None:
    attack = FedRecAttack(FedRecAttack.Params(public_fraction=0.0))
    assert attack.public_fraction == 0
    view = started(attack, make_view, model="ncf")
    updates = attack.craft(view)
    assert not updates.all_rows().values.any()
    assert not any(value.any() for value in updates.dense.stacked().values())


def test_a_public_share_without_interactions_is_a_mistake(make_view: MakeView) -> None:
    empty = replace(PUBLIC, user=PUBLIC.user[:0], item=PUBLIC.item[:0])
    with pytest.raises(UserError, match="no public interaction"):
        started(FedRecAttack(FedRecAttack.Params()), make_view, public_interactions=empty)


def test_the_longest_row_follows_the_learning_rate(make_view: MakeView) -> None:
    for rate, limit in ((0.01, 1.0), (1.0, 0.01)):
        attack = FedRecAttack(FedRecAttack.Params(items_limit=1))
        view = started(attack, make_view, m=1, learning_rate=rate)
        gradient = torch.full((20, 4), 9.0)
        attack._choose_items(view, gradient)
        assert attack._share_out(view, gradient).all_rows().norms().item() == pytest.approx(limit, abs=3e-3)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("clients", ["injected", "compromised"])
def test_it_runs_and_stays_finite(model: str, clients: str) -> None:
    attack = FedRecAttack(FedRecAttack.Params(public_fraction=0.2, items_limit=10, in_turn=clients == "compromised"))
    federation = small_federation(model, attack, num_malicious=5, malicious_clients=clients, learning_rate=0.1)
    for _ in range(3):
        federation.train_epoch()
    federation.check_finite()
