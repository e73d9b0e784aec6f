"""P1, P2 and PipAttack: what attacks do whose clients have data of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from federations import small_federation

from fedbench.attacks import Attack
from fedbench.attacks.demotion import wish
from fedbench.attacks.own_data import random_profiles, split_targets
from fedbench.attacks.p1 import ModelReplacement, ModelReplacementDemoting
from fedbench.attacks.p2 import SMALLEST_Z, LittleIsEnough, LittleIsEnoughDemoting, clamp_rows, width
from fedbench.attacks.pipattack import PipAttack, PipDemotion, _distances, macro_f1, popularity_classes
from fedbench.errors import UserError
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
Logits = dict[str, torch.Tensor]


def started(attack: Attack, make_view: MakeView, **options: Any) -> AttackerView:
    attack.start(make_view(attack.card, in_round=False, **options))
    return make_view(attack.card, **options)


def row_of(updates: Updates, client: int, item: int) -> torch.Tensor:
    rows = updates.all_rows()
    found = rows.values[(rows.client == client) & (rows.item == item)]
    assert len(found) <= 1
    return found[0] if len(found) else torch.zeros(rows.values.shape[1])


def loss_of(view: AttackerView, user: torch.Tensor, targets: torch.Tensor, dense: Logits, sign: float) -> torch.Tensor:
    """-(1/T) sum_t log sigma(+-s(u, v_t)), one target after the other; the sign is - for an attack that demotes."""
    total = torch.zeros(())
    for target in targets:
        total = total - torch.nn.functional.logsigmoid(sign * view.model.logits(dense, user[None], target[None])).sum()
    return total / len(targets)


# ---------------------------------------------------------------------------------------------------------- own data


def test_random_profiles_hold_distinct_items_and_no_target(make_view: MakeView) -> None:
    view = make_view(ModelReplacement.card, targets=(7, 3), m=4, in_round=False)
    profiles = random_profiles(view, 6)
    for client in range(view.num_malicious):
        mine = profiles.item[profiles.client == client].tolist()
        assert len(mine) == len(set(mine)) == 6
        assert not {7, 3} & set(mine)
    with pytest.raises(UserError, match="profile_size = 19"):
        random_profiles(view, 19)


def test_rows_of_targets_are_set_apart(make_view: MakeView) -> None:
    own = Profiles(torch.tensor([0, 0, 1]), torch.tensor([7, 4, 2]))
    view = make_view(ModelReplacement.card, targets=(7, 3), clients=[0, 1], own_data=own)
    honest = view.honest()
    rest, of_targets = split_targets(view, honest)
    assert not {7, 3} & set(rest.item.tolist())
    for c in (0, 1):
        for t, item in enumerate((7, 3)):
            assert torch.equal(of_targets[c, t], row_of(honest.updates, c, item))
    assert of_targets[0, 0].any()


# ---------------------------------------------------------------------------------------------------------------- P1


def test_p1_by_hand(make_view: MakeView) -> None:
    """One client with one item, d = 1: the honest step leaves the target alone; its own step is boosted by 3."""
    own = Profiles(torch.tensor([0]), torch.tensor([2]))
    items = torch.zeros(20, 1)
    items[7] = 1.0
    options: dict[str, Any] = {"clients": [0], "own_data": own, "embedding_size": 1, "params": PublicParams(items, {})}
    view = make_view(ModelReplacement.card, users=torch.tensor([[2.0]]), **options)
    updates = ModelReplacement(ModelReplacement.Params(boost=3.0, honest_steps=1)).craft(view)
    negative = int(next(i for i in view.honest().updates.all_rows().item.tolist() if i != 2))
    factor = 1 - 1 / (1 + math.exp(-2))  # 1 - sigma(2 * 1)
    honest = 0.5 if negative == 7 else 0.0  # the drawn negative may be the target itself
    assert not honest
    assert row_of(updates, 0, 7).item() == pytest.approx(-3 * factor * 2)
    assert row_of(updates, 0, 2).item() == pytest.approx((0.5 - 1) / 2 * 2)  # (sigma(0) - 1) / |D| * u


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
@pytest.mark.parametrize(
    ("cls", "steps"), [(ModelReplacement, 1), (ModelReplacement, 3), (ModelReplacementDemoting, 2)]
)
def test_p1_equals_a_plain_loop(
    make_view: MakeView, model: str, targets: tuple[int, ...], cls: type[ModelReplacement], steps: int
) -> None:
    attack = cls(cls.Params(boost=2.5, local_steps=steps, honest_steps=1))
    view = make_view(attack.card, model, m=3, targets=targets)
    updates = attack.craft(view)
    honest, eta = view.honest(), view.learning_rate
    stacked, own = updates.dense.stacked(), honest.updates.dense.stacked()
    for c in range(3):
        own_rows = torch.stack([row_of(honest.updates, c, t) for t in targets])
        target = view.params.items[list(targets)] - eta * own_rows
        dense = {name: value - eta * own[name][c] for name, value in view.params.dense.items()}
        begin = (target, dense)
        for _ in range(steps):
            leaf = target.clone().requires_grad_()
            leaves = {name: value.clone().requires_grad_() for name, value in dense.items()}
            grads = torch.autograd.grad(
                loss_of(view, honest.users[c], leaf, leaves, wish(attack)), [leaf, *leaves.values()]
            )
            target = target - eta * grads[0]
            dense = {name: dense[name] - eta * g for name, g in zip(leaves, grads[1:], strict=True)}
        for t, item in enumerate(targets):
            expected = own_rows[t] + 2.5 * (begin[0][t] - target[t]) / eta
            assert torch.allclose(row_of(updates, c, item), expected, atol=1e-5)
        for name, value in dense.items():
            expected = own[name][c] + 2.5 * (begin[1][name] - value) / eta
            assert torch.allclose(stacked[name][c], expected, atol=1e-4)
        for item in set(honest.updates.all_rows().item.tolist()) - set(targets):
            assert torch.equal(row_of(updates, c, item), row_of(honest.updates, c, item))


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_p1_after_honest_steps_equals_a_plain_loop(make_view: MakeView, model: str, loss: str) -> None:
    """Each client alone, on a copy of all parameters, by autograd: three honest steps, then one on the target."""
    attack = ModelReplacement(ModelReplacement.Params(boost=2.5, honest_steps=3))
    view = make_view(attack.card, model, m=3, targets=(7,), loss=loss)
    updates, honest, batch, eta = attack.craft(view), view.honest(), view.own_batch, view.learning_rate
    stacked = updates.dense.stacked()
    for c in range(3):
        mine = (batch.client == c).nonzero().squeeze(1)
        begin = [view.params.items, *view.params.dense.values()]
        now = [value.clone() for value in begin]
        for _ in range(3):
            leaves = [value.detach().requires_grad_() for value in now]
            dense = dict(zip(view.params.dense, leaves[1:], strict=True))
            users = honest.users[c].expand(len(batch.item), -1)
            logits = view.model.logits(dense, users, leaves[0][batch.item])
            if loss == "bce":
                plus, minus = (torch.nn.functional.softplus(sign * logits[mine]) for sign in (-1, 1))
                positive = batch.positive[mine]
                own = (positive * plus + (batch.weight[mine] - positive) * minus).sum() / batch.size[c]
            else:
                assert batch.pair_positive is not None
                assert batch.pair_negative is not None
                pairs = batch.client[batch.pair_positive] == c
                margin = logits[batch.pair_positive[pairs]] - logits[batch.pair_negative[pairs]]
                own = torch.nn.functional.softplus(-margin).mean()
            now = [value - eta * g for value, g in zip(now, torch.autograd.grad(own, leaves), strict=True)]
        target = now[0][[7]].clone().requires_grad_()
        leaves = [value.clone().requires_grad_() for value in now[1:]]
        aim = loss_of(view, honest.users[c], target, dict(zip(view.params.dense, leaves, strict=True)), 1.0)
        grads = torch.autograd.grad(aim, [target, *leaves])
        for item in sorted({7, *batch.item[mine].tolist()}):
            expected = (begin[0][item] - now[0][item]) / eta + (2.5 * grads[0][0] if item == 7 else 0)
            assert torch.allclose(row_of(updates, c, item), expected, atol=2e-5)
        for place, name in enumerate(view.params.dense, start=1):
            expected = (begin[place] - now[place]) / eta + 2.5 * grads[place]
            assert torch.allclose(stacked[name][c], expected, atol=2e-4)


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("items", [[], [3]])
def test_p1_of_clients_that_have_nothing_to_train_on(make_view: MakeView, model: str, items: list[int]) -> None:
    """All of them, or all but the first."""
    own = Profiles(torch.full((len(items),), 2), torch.tensor(items, dtype=torch.int64))
    many, once = (
        ModelReplacement(ModelReplacement.Params(honest_steps=steps)).craft(
            make_view(ModelReplacement.card, model, m=3, own_data=own)
        )
        for steps in (10, 1)
    )
    for client in range(len(items), 3):
        assert torch.allclose(row_of(many, client, 7), row_of(once, client, 7), atol=1e-6)
    assert bool(torch.isfinite(many.all_rows().values).all())


@pytest.mark.parametrize(("aggregation", "boost"), [("sum", 1.0), ("mean", 5.0), ("weighted", 5.0)])
def test_p1_undoes_a_mean_and_nothing_else(make_view: MakeView, aggregation: str, boost: float) -> None:
    options: dict[str, Any] = {"aggregation": aggregation, "cohort_size": 10, "malicious_per_round": 2.0}
    by_rule = ModelReplacement(ModelReplacement.Params()).craft(make_view(ModelReplacement.card, **options))
    given_ = ModelReplacement(ModelReplacement.Params(boost=boost)).craft(make_view(ModelReplacement.card, **options))
    assert torch.equal(by_rule.all_rows().values, given_.all_rows().values)


# ---------------------------------------------------------------------------------------------------------------- P2


def test_the_rule_for_z_by_hand() -> None:
    # n = 256, m = 12: s = 129 - 12 = 117; (256 - 12 - 117) / 244 = 0.5205; Phi^-1 = 0.0514
    assert width(256, 12) == pytest.approx(0.0514, abs=1e-4)
    # n = 990, m = 47: s = 496 - 47 = 449; 494 / 943 = 0.5239
    assert width(990, 47) == pytest.approx(0.0599, abs=1e-4)
    assert width(10, 0) == SMALLEST_Z  # (10 - 6) / 10 is below a half
    assert width(10, 10) == SMALLEST_Z


def test_rows_are_clamped_item_by_item() -> None:
    rows = FullRows(torch.tensor([0, 1, 2, 0]), torch.tensor([4, 4, 4, 1]), torch.tensor([[0.0], [3.0], [6.0], [9.0]]))
    clamped = clamp_rows(rows, 5, 0.5)  # item 4: mean 3, deviation sqrt(6)
    reach = 0.5 * math.sqrt(6)
    assert clamped.values.flatten().tolist() == pytest.approx([3 - reach, 3, 3 + reach, 9])


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize(
    ("cls", "scaled"), [(LittleIsEnough, True), (LittleIsEnough, False), (LittleIsEnoughDemoting, True)]
)
@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
def test_p2_equals_a_plain_loop(
    make_view: MakeView, model: str, cls: type[LittleIsEnough], scaled: bool, targets: tuple[int, ...]
) -> None:
    z, alpha, steps = 0.7, 0.4, 2
    attack = cls(cls.Params(z=z, alpha=alpha, local_steps=steps, scaled_distance=scaled))
    view = make_view(attack.card, model, m=3, targets=targets)
    updates = attack.craft(view)
    honest, eta = view.honest(), view.learning_rate
    rows, own = honest.updates.all_rows().values, honest.updates.dense.stacked()
    mean, spread = rows.mean(0), ((rows - rows.mean(0)) ** 2).mean(0).sqrt()
    stacked = updates.dense.stacked()
    for c in range(3):
        target, dense = view.params.items[list(targets)], dict(view.params.dense)
        names = ["", *dense]
        bounds = {"": (mean, spread)} | {
            n: (own[n].mean(0), ((own[n] - own[n].mean(0)) ** 2).mean(0).sqrt()) for n in dense
        }
        start = {"": target, **dense}
        change = {name: torch.zeros_like(value) for name, value in start.items()}
        for _ in range(steps):
            leaves = {name: (start[name] + change[name]).requires_grad_() for name in names}
            loss = alpha * loss_of(view, honest.users[c], leaves[""], {n: leaves[n] for n in dense}, wish(attack))
            grads = dict(zip(names, torch.autograd.grad(loss, list(leaves.values())), strict=True))
            for name in names:
                unit = eta * torch.clamp(z * bounds[name][1], min=1e-5) if scaled else torch.tensor(1.0)
                # The minimiser of (1 - alpha) (x / unit)^2 + (x - y)^2 / (2 eta), y the plain gradient step.
                y = change[name] - eta * grads[name]
                change[name] = (y / (1 + 2 * eta * (1 - alpha) / unit**2)).detach()
        crafted = {
            n: torch.clamp(-change[n] / eta, bounds[n][0] - z * bounds[n][1], bounds[n][0] + z * bounds[n][1])
            for n in names
        }
        for t, item in enumerate(targets):
            assert torch.allclose(row_of(updates, c, item), crafted[""][t], atol=1e-6)
        for name in dense:
            assert torch.allclose(stacked[name][c], crafted[name], atol=1e-6)


@pytest.mark.parametrize("z", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(5))
def test_p2_never_leaves_the_interval(make_view: MakeView, z: float, seed: int) -> None:
    view = make_view(LittleIsEnough.card, "mf", m=4, seed=seed)
    updates = LittleIsEnough(LittleIsEnough.Params(z=z, scaled_distance=False)).craft(view)
    honest = view.honest().updates.all_rows().values
    mean, spread = honest.mean(0), honest.std(0, correction=0)
    rows = updates.all_rows()
    of_target = rows.values[rows.item == 7]
    assert len(of_target) == 4
    assert bool((of_target >= mean - z * spread - 1e-6).all())
    assert bool((of_target <= mean + z * spread + 1e-6).all())


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_a_single_client_is_enough_for_p2(make_view: MakeView, model: str) -> None:
    updates = LittleIsEnough(LittleIsEnough.Params(z=1.0)).craft(make_view(LittleIsEnough.card, model, m=1))
    assert bool(torch.isfinite(updates.all_rows().values).all())
    assert all(bool(torch.isfinite(value).all()) for value in updates.dense.stacked().values())


# --------------------------------------------------------------------------------------------------------- PipAttack


def test_popularity_classes_by_hand() -> None:
    popularity = torch.tensor([5, 100, 7, 1, 50, 3, 2, 9, 8, 4])  # of ten items, one is high and four or so are medium
    label = popularity_classes(popularity)
    assert label[1] == 2
    assert (label == 2).sum() == 1
    assert set(label.nonzero().squeeze(1).tolist()) == {1, 4, 7, 8}  # round(4.5) = 4 items are not low
    assert (label == 0).sum() == 6


def test_distances_are_those_of_all_pairs_and_smooth_at_zero() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(3, 5, generator=g), torch.randn(4, 5, generator=g)
    assert torch.allclose(_distances(a, b), torch.cdist(a, b), atol=1e-5)
    same = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_distances(same, a).sum(), same)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("targets", [(7,), (7, 2, 11)])
@pytest.mark.parametrize(("cls", "alpha_on"), [(PipAttack, "pop"), (PipAttack, "exp"), (PipDemotion, "pop")])
def test_pipattack_equals_a_plain_loop(
    make_view: MakeView, model: str, targets: tuple[int, ...], cls: type[PipAttack], alpha_on: str
) -> None:
    alpha, gamma, rate, steps = 3.0, 0.1, 0.05, 3
    values = {"alpha": alpha, "alpha_on": alpha_on, "gamma": gamma, "local_rate": rate, "local_steps": steps}
    attack = cls(cls.Params(**values, estimator_steps=20, least_f1=None))  # type: ignore[arg-type]
    view = started(attack, make_view, model=model, targets=targets, m=3)
    updates = attack.craft(view)
    honest, eta = view.honest(), view.learning_rate
    own = honest.updates.dense.stacked()
    goals = [
        torch.cat([*(row_of(honest.updates, c, t) for t in targets), *(value[c].flatten() for value in own.values())])
        for c in range(3)
    ]
    stacked = updates.dense.stacked()
    for c in range(3):
        now = {"u": honest.users[c], "v": view.params.items[list(targets)], **view.params.dense}
        start = {name: value.clone() for name, value in now.items()}
        for _ in range(steps):
            leaves = {name: value.clone().requires_grad_() for name, value in now.items()}
            dense = {name: leaves[name] for name in view.params.dense}
            explicit = loss_of(view, leaves["u"], leaves["v"], dense, wish(attack))
            popular = torch.zeros(())
            for target in leaves["v"]:
                x = target
                for place, (weight, bias) in enumerate(attack._layers):
                    x = weight @ x + bias
                    x = torch.relu(x) if place < 3 else x
                popular = popular - torch.log_softmax(x, 0)[0 if cls is PipDemotion else 2] / len(targets)
            crafted = torch.cat([((start[n] - leaves[n]) / eta).flatten() for n in ("v", *view.params.dense)])
            distance = sum((((crafted - goal) ** 2).sum() + 1e-12).sqrt() for goal in goals)
            loss = (alpha if alpha_on == "exp" else 1) * explicit + (alpha if alpha_on == "pop" else 1) * popular
            grads = torch.autograd.grad(loss + gamma * distance, list(leaves.values()))
            now = {name: value - rate * g for (name, value), g in zip(now.items(), grads, strict=True)}
        for t, item in enumerate(targets):
            assert torch.allclose(row_of(updates, c, item), (start["v"][t] - now["v"][t]) / eta, atol=2e-4)
        for name in view.params.dense:
            assert torch.allclose(stacked[name][c], (start[name] - now[name]) / eta, atol=2e-4)
        for item in set(honest.updates.all_rows().item.tolist()) - set(targets):
            assert torch.equal(row_of(updates, c, item), row_of(honest.updates, c, item))


def test_the_estimator_is_trained_once_and_users_are_remembered(make_view: MakeView) -> None:
    attack = PipAttack(PipAttack.Params(local_steps=2, least_f1=None))
    view = started(attack, make_view, m=2)
    attack.craft(view)
    frozen = [weight.clone() for weight, _ in attack._layers]
    users = attack._users.clone()
    attack.craft(make_view(attack.card, m=2, round=1, seed=5))
    assert all(torch.equal(weight, kept) for (weight, _), kept in zip(attack._layers, frozen, strict=True))
    assert attack._met.tolist() == [False, False, True, True]
    assert not users[:2].any()
    assert not torch.equal(attack._users[2:], users[2:])


def test_macro_f1_by_hand() -> None:
    label, told = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 0, 0, 1, 0])
    # class 0: 4 right of 6 told and 4 there; class 1: 1 of 1 and 2; class 2: none
    assert macro_f1(told, label) == pytest.approx((8 / 10 + 2 / 3 + 0) / 3)


def test_the_attack_begins_when_the_estimator_tells_popularity(make_view: MakeView) -> None:
    """Rows of noise say nothing, and the clients are honest; rows that lie by popularity do, and f is frozen."""
    attack = PipAttack(PipAttack.Params(local_steps=2, least_f1=0.9, estimator_rate=0.02))
    popularity = torch.arange(20)
    noise = PublicParams(torch.zeros(20, 4), {})
    view = started(attack, make_view, m=2, params=noise, item_popularity=popularity)
    assert torch.equal(attack.craft(view).all_rows().values, view.honest().updates.all_rows().values)
    assert not attack._layers
    told = PublicParams(torch.nn.functional.one_hot(popularity_classes(popularity), 4).float(), {})
    options: dict[str, Any] = {"m": 2, "params": told, "item_popularity": popularity}
    attack.craft(make_view(attack.card, **options))
    assert not attack._layers  # once an epoch
    attack.craft(make_view(attack.card, epoch=2, **options))
    assert attack._layers
    frozen = attack._layers
    attack.craft(make_view(attack.card, epoch=3, **options))
    assert attack._layers is frozen
    late = PipAttack(PipAttack.Params(local_steps=2, least_f1=0.9, latest_epoch=2))
    started(late, make_view, m=2, params=noise, item_popularity=popularity)
    for epoch, begun in ((1, False), (2, True)):
        late.craft(make_view(late.card, m=2, params=noise, item_popularity=popularity, epoch=epoch))
        assert bool(late._layers) == begun


def test_a_larger_distance_weight_keeps_crafted_gradients_nearer_to_honest_ones(make_view: MakeView) -> None:
    lengths = []
    for gamma in (0.0, 10.0):
        attack = PipAttack(PipAttack.Params(gamma=gamma, local_steps=5, least_f1=None))
        view = started(attack, make_view, m=3, own_data=Profiles(torch.arange(5), torch.tensor([1, 2, 3, 4, 5])))
        lengths.append(torch.stack([row_of(attack.craft(view), c, 7) for c in range(3)]).norm().item())
    assert lengths[1] < lengths[0]


# ------------------------------------------------------------------------------------------------------- in a round


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("clients", ["injected", "compromised"])
@pytest.mark.parametrize("cls", [ModelReplacement, LittleIsEnough, PipAttack])
def test_they_run_and_stay_finite(model: str, clients: str, cls: type[Attack]) -> None:
    small = {"profile_size": 6} | ({"local_steps": 3, "latest_epoch": 2} if cls is PipAttack else {})
    attack = cls(cls.Params(**small))
    options = {"malicious_clients": clients, "attack_start": 2, "learning_rate": 0.1}
    federation = small_federation(model, attack, num_malicious=5, **options)
    for _ in range(3):
        federation.train_epoch()
    federation.check_finite()
