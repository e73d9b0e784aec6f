"""Rounds on a device: nothing on the wrong one, few kernel launches, and the host waits where it must alone.

There is no GPU in most places, so the device is a stand-in that computes on the CPU (``tests/standin_device.py``).
"""

from __future__ import annotations

import functools
import json
import re

import pytest
import torch
from device_rounds import COMMAND, ITEM_RULES, ROUNDS, SETTINGS, TABLE, cases, count, every_case
from standin_device import Refused, StandInDevice, Waited

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.models import MODELS

REASONS: dict[str, str] = {
    # What comes from an attack is checked before it is used as an index; a refusal ends the run.
    "federation/arrays.py Arrays.within": "indices of an upload are checked before they are used",
    "federation/arrays.py _ends": "numbers of an upload are checked: whether they are finite, and how large",
    "federation/arrays.py check_distinct": "pairs of an upload are checked: no (client, item) twice",
    "federation/arrays.py same": "rows of a batch are compared with the engine's own",
    "federation/boundary.py upload": "numbers of samples of an upload are checked",
    "federation/boundary.py batch": "rows of a batch are checked",
    # Shapes that depend on values.
    "attacks/cluster_attack.py shared_rows": "rows are those that a mask names",
    "attacks/dv_fsr.py distinct": "profiles without repeats have as many items as are left",
    "attacks/dv_fsr.py contrasted": "pairs are those of sequences that have some",
    "attacks/dv_fsr.py ended": "sequences are lengthened, each by its own events",
    "attacks/dv_fsr.py owners": "events are laid out by the lengths of sequences",
    "attacks/dv_fsr.py repeated": "events are laid out by the lengths of sequences",
    "attacks/dv_fsr.py substituted": "items are replaced in the events that are drawn",
    "attacks/fed_attack.py hardest": "rows are those of positives and negatives, repeats included",
    "attacks/fedrecattack.py FedRecAttack._choose_items": "clients that come for the first time choose their items",
    "attacks/fedrecattack.py FedRecAttack._gradient": "pairs are those that users do not have yet",
    "attacks/fedrecattack.py FedRecAttack._share_out": "rows of what is left of the gradient",
    "attacks/fedrecattack.py FedRecAttack._train_users": "pairs are those of a batch of users",
    "attacks/frecattack2.py FRecAttack2.craft": "clients are taught one by one",
    "attacks/frecattack2.py taught": "rows of the items that are taught",
    "attacks/p1.py after_steps": "rows are laid out as wide as the longest of the clients",
    "attacks/own_data.py split_targets": "rows of targets, and the others",
    "attacks/sampling.py others": "items that are no targets",
    "attacks/subgroup_spattack.py relevant": "items that matter to a subgroup",
    "attacks/synthetic_users.py SyntheticUsers._profiles": "torch asks whether weights can be drawn from",
    "defenses/bucketing.py Bucketing.over_items": "buckets of an item are as many as its rows need",
    "defenses/grouped.py RowsByItem.groups": "groups are laid out by the numbers of rows of items, read once",
    "defenses/guardcq.py GuardCQ._popular": "items that are uploaded often",
    "defenses/guardcq.py GuardCQ._remembered": "clients that it has seen",
    "defenses/guardcq.py GuardCQ.filter": "clients that are dropped are left out",
    "defenses/guardcq.py stated": "rows of the items that it looks at",
    "defenses/fl_wbc.py _LastGradients._find": "rows that a client has uploaded before",
    "defenses/fl_wbc.py _LastGradients._places": "its store is laid out by the numbers of rows",
    "defenses/fl_wbc.py _LastGradients.replace": "its store is laid out by the numbers of rows",
    "defenses/mixing.py Mixing.filter": "uploads that are not finite are left out",
    "defenses/nnm.py NearestNeighbourMixing.over_items": "mixed rows are those that are no padding",
    "defenses/robust.py RobustAggregation.aggregate": "uploads that are not finite are left out",
    "defenses/union.py Union.filter": "uploads that are not finite, and clients that it drops, are left out",
    "defenses/union.py _with_dropout": "rows of the items that were drawn",
    "defenses/union.py _within": "rows of sampled items",
    "defenses/union.py contrastive": "anchors are the rows of positives, and rows that meet are added up",
    "defenses/union.py draw_outside": "items are drawn outside of a client's own",
    "federation/clients.py _negatives": "negatives are drawn outside of a client's own items",
    "federation/own_work.py OwnWork.users": "histories are laid out by their lengths",
    "federation/rows.py coalesced": "rows that meet are added up",
    "federation/updates.py Updates.keep": "clients that are dropped are left out",
    "federation/updates.py Updates.settled": "clients that are dropped are left out",
    "federation/updates.py Updates.relative": "clients with another share get rows of all items",
    "federation/updates.py Updates._written": "clients with another share get rows of all items",
    "models/buckets.py in_buckets": "sequences of similar lengths go together",
    "models/star.py Star.of": "leaves are the rows of positives",
    # Sequential by definition, or on the host.
    "attacks/adaptive.py Adaptive._search": "it searches where there is something to scale",
    "attacks/adaptive.py moved": "the best of its candidates is chosen on the host",
    "attacks/cluster_attack.py ClusterAttack.craft": "the number of clusters follows from this round's value",
    "attacks/cluster_attack.py k_means": "it ends when the centroids rest",
    "defenses/dnc.py DivideAndConquer.factors": "torch asks whether eigenvectors were found, of the items with attackers",
    "defenses/iterated_krum.py select": "one winner after the other, on the host",
    "defenses/majority.py densest_majority": "a tree grows point by point, on the host",
    "federation/mining.py PopularItemMiner.observe": "whose history it is, is kept on the host",
    "federation/own_work.py OwnWork.stand_ins": "who stands in is drawn on the host",
    "federation/simulated_server.py SimulatedRound.gradient": "how often clients stand in is read off their ids",
    "models/sasrec.py SelfAttentiveSequentialRecommender.local_step": "one negative for each positive, which is checked",
}
"""Every function of the package in which the host may wait for the device in a round, and why."""


@functools.cache
def _table() -> dict[str, list[float]]:
    return json.loads(TABLE.read_text(encoding="utf-8"))


def _room() -> float:
    """Other versions of torch make other kernels of the same call."""
    return 1.0 if _table()["torch"] == torch.__version__.split("+")[0] else 1.3


def _function(place: str) -> str:
    """``file function`` of ``file:line function``."""
    return re.sub(r":\d+", "", place)


def _check(name: str, limits: list[float] | None) -> None:
    seen = count(name)
    strange = [f"{place}: {what}" for place, what in seen.waits if _function(place) not in REASONS]
    assert not strange, f"{name}: the host waits for the device at {'; '.join(strange)}"
    if limits is not None:
        launches, waits = seen.launches / ROUNDS, seen.syncs / ROUNDS
        told = f"{name}: {launches:g} launches and {waits:g} waits a round; in the table {limits} ({COMMAND})"
        assert launches <= limits[0] * _room(), told
        assert waits <= limits[1] * _room(), told


SHORT = [pytest.param(name, marks=pytest.mark.slow if "-demote/" in name else ()) for name in cases()]
"""An attack that demotes is the one that promotes, with another sign."""


@pytest.mark.parametrize("name", SHORT)
def test_rounds_do_not_cost_more_than_before(name: str) -> None:
    assert name in _table(), f"{name} is not in the table: {COMMAND}"
    _check(name, _table()[name])


@pytest.mark.slow
@pytest.mark.parametrize(("protocol", "model"), SETTINGS)
def test_no_round_waits_where_it_need_not(protocol: str, model: str) -> None:
    for name in every_case(protocol, model):
        _check(name, None)


def test_every_entry_is_in_the_table() -> None:
    parts = [name.split("/") for name in _table() if "/" in name]
    assert {model for _, model, _, _ in parts} == set(MODELS.names())
    assert {attack for _, _, attack, _ in parts} == set(ATTACKS.names())
    assert {defense.partition("@")[0] for _, _, _, defense in parts} == set(DEFENSES.names())
    assert {(protocol, model) for protocol, model, _, _ in parts} == set(SETTINGS)


def test_rules_by_item_launch_150_kernels_at_most_and_clean_rounds_never_wait() -> None:
    assert {name: _table()[name][0] for name in ITEM_RULES if _table()[name][0] > 150} == {}
    for protocol, model in (
        ("icde24", "mf"),
        ("icde24", "ncf"),
        ("ijcai22", "ncf"),
        ("wsdm22", "mf"),
        ("aaai23", "mf"),
    ):
        assert _table()[f"{protocol}/{model}/none/none"][1] == 0


# The stand-in itself.


def test_tensors_say_where_they_are() -> None:
    with StandInDevice() as device:
        x = torch.zeros(4, 3, device="cuda")
        here = [
            x,
            x.T,
            x + 1,
            x.long(),
            x.new_zeros(2),
            torch.zeros_like(x),
            torch.arange(3, device=x.device),
            x.cpu().to(x.device),
        ]
        here += [torch.tensor([1.0], device="cuda"), torch.as_tensor(0.5, device="cuda"), (x + torch.tensor(1.0))[0]]
        assert all(value.device == device.device and value.is_cuda for value in here)
        there = [torch.zeros(2), x.cpu(), torch.zeros_like(x, device="cpu"), torch.rand(2, generator=torch.Generator())]
        assert not any(value.is_cuda for value in there)
        weight = torch.ones(3, device="cuda", requires_grad=True)
        (gradient,) = torch.autograd.grad((x @ weight).sum(), weight)
        assert gradient.is_cuda
        drawn = torch.rand(3, generator=torch.Generator(device="cuda").manual_seed(1), device="cuda")
    assert torch.equal(drawn, torch.rand(3, generator=torch.Generator().manual_seed(1)))  # it computes on the CPU


def test_what_cuda_refuses_is_refused_with_its_place() -> None:
    with StandInDevice():
        x, host = torch.zeros(4, device="cuda"), torch.zeros(4)
        for wrong in (
            lambda: x + host,
            lambda: host[x.long()],
            lambda: x.index_select(0, torch.tensor(0)),
            lambda: x.numpy(),
            lambda: torch.rand(2, generator=torch.Generator(), device="cuda"),
            lambda: torch.rand(2, generator=torch.Generator(device="cuda")),
        ):
            with pytest.raises(Refused, match=r"test_device\.py:\d+"):
                wrong()


def test_waits_are_counted_and_raised_with_their_place() -> None:
    with StandInDevice() as device:
        x = torch.arange(4, device="cuda")
        device.counted()
        waiting = (
            lambda: x[0].item(),
            lambda: x.tolist(),
            lambda: bool((x > 1).any()),
            lambda: float(x.sum()),
            lambda: x.cpu(),
            lambda: (x > 1).nonzero(),
            lambda: x[x > 1],
            lambda: x.masked_select(x > 1),
            lambda: x.unique(),
            lambda: torch.bincount(x),
            lambda: x.repeat_interleave(x),
            lambda: torch.zeros(2).to("cuda"),
            lambda: x.new_tensor([1]),
            lambda: torch.equal(x, x),
        )
        for wait in waiting:
            wait()
            assert device.counted().syncs == 1
            with device.no_waits(), pytest.raises(Waited, match=r"test_device\.py:\d+"):
                wait()
            device.counted()
        with device.no_waits():
            torch.repeat_interleave(torch.arange(4, device="cuda"), output_size=6)
            torch.zeros(2).to("cuda", non_blocking=True)
            x[x > 1] = 0
            torch.full((2,), 3, device="cuda")


def test_launches_are_counted() -> None:
    with StandInDevice() as device:
        x = torch.zeros(4, 3, device="cuda")
        assert device.counted().launches == 1
        (x.T[0].view(-1) + 1).sum()
        assert device.counted().launches == 2
        torch.zeros(3) + 1
        assert device.counted().launches == 0
