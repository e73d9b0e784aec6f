"""Attacks turned round: what they upload is what the attack that promotes would, were likes dislikes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.attacks import ATTACKS, Attack
from fedbench.attacks.explicit_boost import ExplicitDemotion
from fedbench.attacks.pieck_ipe import DemotingIPE, PieckIPE
from fedbench.attacks.pieck_uea import DemotingUEA
from fedbench.attacks.poisonfrs import DemotingFRS
from fedbench.attacks.psmu import lifted
from fedbench.attacks.shilling import Shilling
from fedbench.entries.cards import Goal, Parameters
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]
TURNED = sorted(name for name in ATTACKS.names() if ATTACKS.get(name).card.goal == Goal.DEMOTE)


def crafted(cls: type[Attack], params: Parameters, views: list[AttackerView]) -> Updates:
    """The upload in the last of several rounds."""
    attack = cls(params)
    attack.start(views[0])
    return [attack.craft(view) for view in views][-1]


def test_the_opposite_of_an_attack_knows_and_needs_the_same() -> None:
    """And stands under its name on the board, where no fake profile has one."""
    assert len(TURNED) >= 11
    for name in TURNED:
        card, of = ATTACKS.get(name).card, ATTACKS.get(name.removesuffix("-demote"))
        expected = replace(of.card, goal=Goal.DEMOTE)
        assert (
            replace(card, name=of.card.name, title=of.card.title, paper=of.card.paper, notes=of.card.notes) == expected
        )
        assert issubclass(ATTACKS.get(name), of)
        assert not issubclass(of, Shilling)


@pytest.mark.parametrize("name", ["explicit-boost", "a-ra", "a-hum", "pieck-uea"])
@pytest.mark.parametrize("targets", [(7,), (7, 0, 12)])
def test_demotion_is_promotion_where_every_logit_has_the_other_sign(
    name: str, targets: tuple[int, ...], make_view: MakeView
) -> None:
    """On ncf the last layer's parameters with the other sign are that: the loss is the same, and so are all gradients."""
    turned, cls = ATTACKS.get(f"{name}-demote"), ATTACKS.get(name)
    params = cls.Params(
        **({"popular_items": 4, "poison_dense": True, "multi_target": "together"} if "uea" in name else {})
    )
    options = {"model": "ncf", "targets": targets, "m": 2, "seed": 2}
    first = make_view(turned.card, **options)
    moved = first.params.items + torch.randn(20, 4, generator=torch.Generator().manual_seed(5)) / 10
    dense = first.params.dense
    mirror = {**dense, "h": -dense["h"], "bh": -dense["bh"]}
    rounds = {
        kind: [
            make_view(each.card, params=PublicParams(items, own), **options) for items in (first.params.items, moved)
        ]
        for kind, each, own in (("down", turned, dense), ("up", cls, mirror))
    }
    down, up = crafted(turned, params, rounds["down"]), crafted(cls, params, rounds["up"])
    assert down.all_rows().item.tolist() == up.all_rows().item.tolist() == list(targets) * 2
    assert torch.allclose(down.all_rows().values, up.all_rows().values, atol=1e-7)
    assert down.all_rows().values.any()
    ours, theirs = down.dense.stacked(), up.dense.stacked()
    for key, value in ours.items():
        assert torch.allclose(value, -theirs[key] if key in ("h", "bh") else theirs[key], atol=1e-7), key


@pytest.mark.parametrize("margin", ["probability", "logit", "softplus"])
def test_psmu_turned_round_is_psmu_where_every_logit_has_the_other_sign(margin: str, make_view: MakeView) -> None:
    """With r = sigma(s) that of -s is 1 - r, so that differences change their sign there, too."""
    card = ATTACKS.get("psmu-demote").card
    view = make_view(card, "ncf", targets=(7, 2))
    users, listed = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([[1, 7, 3]] * 3)
    dense = view.params.dense
    mirror = PublicParams(view.params.items, {**dense, "h": -dense["h"], "bh": -dense["bh"]})
    up = lifted(make_view(card, "ncf", targets=(7, 2), params=mirror), users, listed, margin)  # type: ignore[arg-type]
    down = lifted(view, users, listed, margin, -1.0)  # type: ignore[arg-type]
    assert torch.allclose(down.all_rows().values, up.all_rows().values, atol=1e-7)
    assert down.all_rows().values.any()


@pytest.mark.parametrize("similarity", ["cosine", "kl"])
def test_ipe_turned_round_is_ipe_among_opposite_items(similarity: str, make_view: MakeView) -> None:
    """Which items are popular does not depend on their signs, since lengths of differences tell."""
    params = PieckIPE.Params(popular_items=5, similarity=similarity)  # type: ignore[arg-type]
    first = make_view(DemotingIPE.card, m=2).params.items
    moved = first + torch.randn(20, 4, generator=torch.Generator().manual_seed(5)) / 10
    signs = -torch.ones(20, 1)
    signs[7] = 1
    down, up = (
        crafted(
            cls, params, [make_view(cls.card, m=2, params=PublicParams(items * sign, {})) for items in (first, moved)]
        )
        for cls, sign in ((DemotingIPE, torch.ones(20, 1)), (PieckIPE, signs))
    )
    assert torch.equal(down.all_rows().values, up.all_rows().values)
    assert down.all_rows().values.any()


def test_one_disliking_client_on_mf_by_hand(make_view: MakeView) -> None:
    # u.v = ln 3, sigma = 3/4: the row is (3/4) u, and u moves by -0.5 (3/4) v.
    items = torch.zeros(8, 2)
    items[7] = torch.tensor([math.log(3), 5.0])
    view = make_view(ExplicitDemotion.card, m=1, num_items=8, embedding_size=2, params=PublicParams(items, {}))
    attack = ExplicitDemotion(ExplicitDemotion.Params())
    attack.start(view)
    attack.users[2] = torch.tensor([1.0, 0.0])
    assert torch.allclose(attack.craft(view).all_rows().values, torch.tensor([[0.75, 0.0]]))
    assert torch.allclose(attack.users[2], torch.tensor([1 - 0.375 * math.log(3), -1.875]))


def test_popular_items_that_dislike_the_target_by_hand(make_view: MakeView) -> None:
    # Item 3 has moved most; v_3 . v_7 = 2: the row is sigma(2) v_3.
    items = torch.zeros(20, 2)
    items[7, 0] = 1.0
    moved = items.clone()
    moved[3] = torch.tensor([2.0, 1.0])
    views = [
        make_view(DemotingUEA.card, m=1, embedding_size=2, params=PublicParams(each, {})) for each in (items, moved)
    ]
    sent = crafted(DemotingUEA, DemotingUEA.Params(popular_items=1, accumulation="none"), views)
    assert torch.allclose(sent.all_rows().values, torch.tensor([[2.0, 1.0]]) / (1 + math.exp(-2)))


def test_poisonfrs_turned_round_by_hand(make_view: MakeView) -> None:
    """The mean row is (1, 1); item 0 is least aligned with it. The goal is -3 (-1, 0), from (2, 2), by a step of 0.5."""
    items = torch.tensor([[-1.0, 0.0], [2.0, 1.0], [2.0, 2.0]])
    view = make_view(DemotingFRS.card, m=1, num_items=3, embedding_size=2, targets=(2,), params=PublicParams(items, {}))
    params = DemotingFRS.Params(wait_rounds=0, popular_items=1, scale=3, items_per_client=1)
    assert crafted(DemotingFRS, params, [view]).all_rows().values.tolist() == [[-2.0, 4.0]]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(m=st.integers(1, 4), seed=st.integers(0, 999), step=st.floats(1e-3, 10), several=st.booleans())
def test_whoever_dislikes_a_target_scores_it_lower_after_a_step(
    make_view: MakeView, m: int, seed: int, step: float, several: bool
) -> None:
    view = make_view(ExplicitDemotion.card, m=m, targets=(7, 2) if several else (7,), seed=seed)
    attack = ExplicitDemotion(ExplicitDemotion.Params())
    attack.start(view)
    users = attack.users[view.clients].clone()
    rows = attack.craft(view).all_rows()
    targets = view.params.items[rows.item]
    before = (users[rows.client] * targets).sum(1)
    after = (users[rows.client] * (targets - step * rows.values)).sum(1)
    assert bool((after < before).all())
