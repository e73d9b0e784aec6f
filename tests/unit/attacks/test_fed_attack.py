from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fedbench.attacks.fed_attack import FedAttack, hardest
from fedbench.attacks.label_flip import flipped
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.view import AttackerView

MakeView = Callable[..., AttackerView]


def batch_of(degrees: list[int], num_items: int, q: int = 1, pairwise: bool = True, seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    user = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    item = torch.cat([torch.randperm(num_items, generator=g)[:k].sort().values for k in degrees])
    negatives = draw_negatives(user, item, len(degrees), num_items, q, g)
    rows = TrainingRows.build(user, item, negatives, len(degrees), num_items, pairwise)
    return rows.select(torch.arange(len(degrees)))


def orders(m: int, num_items: int, seed: int = 1) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(num_items, generator=g) for _ in range(m)])


def generator(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pairs_of(batch: Batch) -> list[tuple[int, int, int]]:
    """Client, positive and negative of every pair."""
    assert batch.pair_positive is not None
    assert batch.pair_negative is not None
    return [
        (int(batch.client[p]), int(batch.item[p]), int(batch.item[n]))
        for p, n in zip(batch.pair_positive, batch.pair_negative, strict=True)
    ]


def samples_of(batch: Batch) -> list[tuple[int, int, bool]]:
    """Client, item and label of every sample."""
    found = []
    for c, i, w, p in zip(batch.client, batch.item, batch.weight, batch.positive, strict=True):
        found += [(int(c), int(i), True)] * int(p) + [(int(c), int(i), False)] * int(w - p)
    return found


def test_the_published_code_by_hand() -> None:
    # One client with the positives 3 and 0; item 3 scores highest, then 1; item 2 lowest.
    rows = TrainingRows.build(torch.tensor([0, 0]), torch.tensor([3, 0]), torch.tensor([[1], [2]]), 1, 5, True)
    order = torch.tensor([[3, 1, 0, 4, 2]])
    hard = hardest(rows.select(torch.tensor([0])), order, FedAttack.Params(pool=1), generator())
    # The first pair may not have its own positive 3 as negative and takes the next; the second may.
    assert pairs_of(hard) == [(0, 2, 1), (0, 2, 3)]
    assert hard.item.tolist() == [1, 2, 3]
    assert hard.weight.tolist() == [1.0, 2.0, 1.0]
    assert hard.positive.tolist() == [0.0, 2.0, 0.0]
    assert hard.starts.tolist() == [0, 3]
    assert hard.size.tolist() == [4.0]


@pytest.mark.parametrize("pairwise", [True, False])
@pytest.mark.parametrize("q", [1, 3])
@pytest.mark.parametrize("pool", [None, 1, 4, 1000])
@pytest.mark.parametrize("degrees", [[4], [1, 7, 3], [2, 0, 5]])
def test_samples_come_from_the_ends_and_the_rest_stays(
    pairwise: bool, q: int, pool: int | None, degrees: list[int]
) -> None:
    num_items, m = 30, len(degrees)
    batch, order = batch_of(degrees, num_items, q, pairwise), orders(m, num_items)
    hard = hardest(batch, order, FedAttack.Params(pool=pool), generator())
    size = [min(max(1, k if pool is None else pool), num_items // 2) for k in degrees]
    if pairwise:
        before, after = pairs_of(batch), pairs_of(hard)
        assert [c for c, _, _ in before] == [c for c, _, _ in after]
        for (c, own, _), (_, positive, negative) in zip(before, after, strict=True):
            ranking = order[c].tolist()
            assert positive in ranking[-size[c] :]
            allowed = [i for i in ranking[: size[c]] if i != own]
            assert negative in (allowed if len(allowed) == size[c] else [*allowed, ranking[size[c]]])
    else:
        assert hard.pair_positive is None
        assert hard.pair_negative is None
        counts = [(c, label) for c, _, label in samples_of(batch)]
        assert sorted(counts) == sorted((c, label) for c, _, label in samples_of(hard))
        for c, i, label in samples_of(hard):
            assert i in (order[c].tolist()[-size[c] :] if label else order[c].tolist()[: size[c]])
    # A batch as the engine makes them: rows distinct, sorted, client by client.
    key = hard.client * num_items + hard.item
    assert bool((key[1:] > key[:-1]).all())
    assert hard.starts.tolist() == [int((hard.client < c).sum()) for c in range(m + 1)]
    assert torch.equal(hard.size, batch.size)
    assert torch.equal(hard.clients, batch.clients)


def test_draws_are_uniform_over_the_pools() -> None:
    user = torch.zeros(30_000, dtype=torch.long)
    rows = TrainingRows.build(user, user, user[:, None] + 1, 1, 10, True)
    hard = hardest(rows.select(torch.tensor([0])), torch.arange(9, -1, -1)[None], FedAttack.Params(pool=3), generator())
    pairs = pairs_of(hard)
    for place, items in ((1, [0, 1, 2]), (2, [7, 8, 9])):
        share = [sum(pair[place] == item for pair in pairs) / len(pairs) for item in items]
        assert share == pytest.approx([1 / 3] * 3, abs=0.02)
    # 0 scores lowest here, so that no negative had to be moved; from the other side every third one does.
    turned = pairs_of(
        hardest(rows.select(torch.tensor([0])), torch.arange(10)[None], FedAttack.Params(pool=3), generator())
    )
    share = [sum(pair[2] == item for pair in turned) / len(turned) for item in range(4)]
    assert share == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3], abs=0.02)


@pytest.mark.parametrize("num_items", [1, 2, 3])
def test_few_items_are_enough(num_items: int) -> None:
    batch = batch_of([1], num_items)
    hard = hardest(batch, orders(1, num_items), FedAttack.Params(pool=None), generator())
    assert set(hard.item.tolist()) <= set(range(num_items))


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("loss", ["bpr", "bce"])
@pytest.mark.parametrize("pool", [None, 1])
def test_uploads_are_the_gradients_of_the_hard_samples(
    make_view: MakeView, model: str, loss: str, pool: int | None
) -> None:
    options: dict[str, Any] = {"loss": loss, "m": 3}
    sent = FedAttack(FedAttack.Params(pool=pool)).craft(make_view(FedAttack.card, model, **options))
    view = make_view(FedAttack.card, model, **options)
    users, rows = view.own_users, sent.all_rows()
    scores = torch.stack([view.model.logits(view.params.dense, u.expand(20, -1), view.params.items) for u in users])
    order = torch.tensor([sorted(range(20), key=lambda i, s=s: -s[i]) for s in scores.tolist()])  # type: ignore[misc]
    hard = hardest(view.own_batch, order, FedAttack.Params(pool=pool), view.generator)
    for c in range(3):
        items = view.params.items.clone().requires_grad_()

        def logit(item: int, items: torch.Tensor = items, user: torch.Tensor = users[c]) -> torch.Tensor:
            return view.model.logits(view.params.dense, user[None], items[item][None])[0]

        if loss == "bpr":
            mine = [pair for pair in pairs_of(hard) if pair[0] == c]
            terms = [torch.nn.functional.softplus(logit(n) - logit(p)) for _, p, n in mine]
        else:
            terms = [
                torch.nn.functional.softplus(-logit(i) if label else logit(i))
                for owner, i, label in samples_of(hard)
                if owner == c
            ]
        (expected,) = torch.autograd.grad(torch.stack(terms).mean(), items)
        got = torch.zeros(20, 4)
        got.index_add_(0, rows.item[rows.client == c], rows.values[rows.client == c])
        assert torch.allclose(got, expected, atol=1e-6)
    assert torch.equal(sent.weights, view.own_batch.size)


def test_as_in_the_code_of_aaai23_every_pair_has_one_positive_and_a_negative_of_its_own() -> None:
    """Two clients with 3 and 2 positives of 10 items; the orders of their scores are descending and ascending ids."""
    rows = TrainingRows.build(
        torch.tensor([0, 0, 0, 1, 1]),
        torch.tensor([1, 4, 6, 0, 3]),
        torch.tensor([[2], [3], [5], [7], [8]]),
        2,
        10,
        pairwise=True,
    )
    batch = rows.select(torch.arange(2))
    order = torch.stack([torch.arange(9, -1, -1), torch.arange(10)])
    hard = hardest(batch, order, FedAttack.Params(draw="each-once"), generator())
    assert hard.pair_positive is not None
    assert hard.pair_negative is not None
    assert hard.item[hard.pair_positive].tolist() == [0, 0, 0, 9, 9]
    assert hard.item[hard.pair_negative].tolist() == [9, 8, 7, 0, 1]
    assert hard.sequence is None


def test_what_models_of_sequences_read_stays() -> None:
    rows = TrainingRows.build(
        torch.tensor([0, 0, 0]), torch.tensor([6, 1, 4]), torch.tensor([[2], [3], [5]]), 1, 10, pairwise=True
    )
    batch = rows.select(torch.tensor([0]))
    hard = hardest(batch, torch.arange(10)[None], FedAttack.Params(), generator(), keep_sequences=True)
    assert hard.sequence is not None
    assert hard.item[hard.sequence].tolist() == [6, 1, 4]
    assert hard.weight.sum() == 6
    assert hard.positive.sum() == 3
    swapped = flipped(batch)
    assert swapped.sequence is not None
    assert swapped.item[swapped.sequence].tolist() == [6, 1, 4]
