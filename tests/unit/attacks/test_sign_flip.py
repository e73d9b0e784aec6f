from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from federations import small_federation, small_task

from fedbench.attacks.sign_flip import SignFlip
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, Profiles
from fedbench.models import PublicParams

MakeView = Callable[..., AttackerView]


def craft(view: AttackerView, factor: float = 1.0) -> Updates:
    return SignFlip(SignFlip.Params(factor=factor)).craft(view)


def test_one_pair_by_hand(make_view: MakeView) -> None:
    # As for label-flip: u = 2, margin ln 3, so the honest row of item 2 is -(1 - 3/4) u.
    items = torch.zeros(20, 1)
    items[2] = math.log(3) / 2
    own = Profiles(torch.tensor([0]), torch.tensor([2]))
    view = make_view(
        SignFlip.card, clients=[0], own_data=own, users=torch.tensor([[2.0]]), params=PublicParams(items, {}), loss="bpr",
        embedding_size=1,
    )  # fmt: skip
    rows = craft(view, 3.0).all_rows()
    sent = dict(zip(rows.item.tolist(), rows.values.flatten().tolist(), strict=True))
    (other,) = set(sent) - {2}
    assert sent == {2: pytest.approx(1.5), other: pytest.approx(-1.5)}


@pytest.mark.parametrize("model", ["mf", "ncf", "lightgcn"])
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_each_client_sends_its_own_gradient_turned_round(make_view: MakeView, model: str, loss: str) -> None:
    view = make_view(SignFlip.card, model, loss=loss)
    sent, honest = craft(view, 2.5), view.honest().updates
    theirs, rows = sent.all_rows(), honest.all_rows()
    for at in range(len(rows.item)):
        mine = (theirs.client == rows.client[at]) & (theirs.item == rows.item[at])
        assert torch.allclose(theirs.values[mine][0], -2.5 * rows.values[at])
    for name, value in honest.dense.stacked().items():
        assert torch.allclose(sent.dense.stacked()[name], -2.5 * value)
    assert torch.equal(sent.weights, honest.weights)
    assert len(theirs.item) == len(rows.item)


def test_a_round_of_flipped_clients_alone_climbs_as_far_as_honest_ones_descend() -> None:
    """With all that honest clients do, the pull of an L2 term on everything included."""
    task = replace(small_task(num_malicious=30), targets=torch.zeros(0, dtype=torch.long))
    ends = []
    for loyal in (False, True):
        made = SignFlip(SignFlip.Params())
        if loyal:
            made.craft = lambda view: view.honest().updates  # type: ignore[method-assign]
        federation = small_federation(
            "mf", made, task=task, malicious_clients="compromised", clients_per_round=30, loss="bpr",
            regularized="all", regularization=0.1, aggregation="mean",
        )  # fmt: skip
        start = federation.params.items.clone()
        federation.train_epoch()
        ends.append(federation.params.items - start)
    assert float(ends[0].abs().max()) > 1e-3
    assert torch.allclose(ends[0], -ends[1], atol=1e-6)
