"""What must hold of the untargeted attacks from own data whatever the clients upload."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.attacks.clean_statistics import CleanStatistics, Spread, clean_statistics, upload_of_all_items
from fedbench.attacks.distance_bounded import DistanceBounded, MinMax, MinSum
from fedbench.attacks.fed_attack import FedAttack, hardest
from fedbench.attacks.label_flip import flipped
from fedbench.attacks.statistical import Fang, Gaussian, InnerProduct, Lie
from fedbench.attacks.ua_fedrec import extremes, similarity_gradient
from fedbench.entries.cards import AttackCard
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.losses import Loss
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView, RoundState, Surroundings
from fedbench.models import MODELS, PublicParams

SIZE = 3


@st.composite
def uploads(draw: st.DrawFn) -> tuple[int, Updates]:
    """M, and the honest uploads of one to six clients over M items; some with what is common to all."""
    num_items, count = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    scale = draw(st.sampled_from([0.0, 1e-4, 1.0, 1e3]))
    client, item = (torch.rand(count, num_items, generator=g) < draw(st.sampled_from([0.0, 0.3, 1.0]))).nonzero().T
    values = torch.randn(len(item), SIZE, generator=g) * scale
    common = None
    if draw(st.booleans()):
        common = Common(torch.randn(num_items, SIZE, generator=g), torch.ones(count))
    dense = {"W": torch.randn(count, 2, 3, generator=g) * scale}
    weights = torch.randint(1, 99, (count,), generator=g).float()
    return num_items, Updates(
        torch.arange(count), (FullRows(client, item, values),), DenseGradients.of(dense), weights, common
    )


def view(card: AttackCard, num_items: int, m: int = 2, seed: int = 0) -> AttackerView:
    cls = MODELS.get("mf")
    g = torch.Generator().manual_seed(seed)
    surroundings = Surroundings(
        cls(cls.Params(embedding_size=SIZE)), num_items, m, 1.0, "sum", torch.zeros(0, dtype=torch.long),
        torch.device("cpu"), g,
    )  # fmt: skip
    params = PublicParams(torch.zeros(num_items, SIZE), {"W": torch.zeros(2, 3)})
    return AttackerView(card, surroundings, cohort_size=20, state=RoundState(params, torch.arange(m), 1, 0))


def parts(seen: CleanStatistics) -> list[Spread]:
    return [seen.items, *seen.dense.values()]


@settings(max_examples=60, deadline=None)
@given(case=uploads(), seed=st.integers(0, 99))
def test_statistics_do_not_depend_on_the_order_of_the_clients(case: tuple[int, Updates], seed: int) -> None:
    num_items, updates = case
    g = torch.Generator().manual_seed(seed)
    turn = torch.randperm(len(updates.clients), generator=g)
    place = torch.argsort(turn)
    rows = updates.all_rows()
    moved = replace(
        updates,
        rows=(rows.renumbered(place[rows.client]).take(torch.randperm(len(rows.item), generator=g)),),
        dense=DenseGradients.of({name: value[turn] for name, value in updates.dense.stacked().items()}),
    )
    for a, b in zip(
        parts(clean_statistics(updates, num_items)), parts(clean_statistics(moved, num_items)), strict=True
    ):
        assert torch.allclose(a.mean, b.mean, rtol=1e-5, atol=1e-7)
        assert torch.allclose(a.std, b.std, rtol=1e-4, atol=1e-7)
        assert bool((b.std >= 0).all())


@settings(max_examples=60, deadline=None)
@given(case=uploads(), factor=st.sampled_from([0.25, 2.0, 8.0]))
def test_statistics_scale_with_the_uploads(case: tuple[int, Updates], factor: float) -> None:
    num_items, updates = case
    larger = updates.scaled(torch.full_like(updates.weights, factor))
    if updates.common is not None:
        larger = replace(larger, common=Common(updates.common.gradient * factor, updates.common.share))
    for a, b in zip(
        parts(clean_statistics(updates, num_items)), parts(clean_statistics(larger, num_items)), strict=True
    ):
        assert torch.allclose(a.mean * factor, b.mean, rtol=1e-5)
        assert torch.allclose(a.std * factor, b.std, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(case=uploads(), z=st.floats(0, 5))
def test_lie_with_z_zero_is_the_mean_and_moves_by_z_sigma(case: tuple[int, Updates], z: float) -> None:
    num_items, updates = case
    for seen in parts(clean_statistics(updates, num_items)):
        still = Lie(Lie.Params(z=0.0)).poisoned(view(Lie.card, num_items), seen)
        assert torch.equal(still, seen.mean)
        sent = Lie(Lie.Params(z=z)).poisoned(view(Lie.card, num_items), seen)
        room = 1e-5 * (seen.mean.abs() + z * seen.std)
        assert bool(((seen.mean - sent - z * seen.std).abs() <= room).all())
        assert bool(torch.isfinite(sent).all())


@settings(max_examples=60, deadline=None)
@given(case=uploads(), seed=st.integers(0, 99))
def test_fang_lies_on_the_far_side_of_zero_by_three_to_four_sigma(case: tuple[int, Updates], seed: int) -> None:
    num_items, updates = case
    for seen in parts(clean_statistics(updates, num_items)):
        sent = Fang(Fang.Params()).poisoned(view(Fang.card, num_items, seed=seed), seen)
        way = (seen.mean - sent) * seen.mean.sign()
        room = 1e-5 * (seen.mean.abs() + 4 * seen.std)
        held = seen.mean != 0
        assert bool((way >= 3 * seen.std - room)[held].all())
        assert bool((way <= 4 * seen.std + room)[held].all())
        assert not sent[~held].any()
        beyond = held & (seen.mean.abs() < 3 * seen.std * 0.99)
        assert bool((sent.sign() == -seen.mean.sign())[beyond].all())


@settings(max_examples=30, deadline=None)
@given(case=uploads(), epsilon=st.floats(0.01, 100))
def test_the_inner_product_of_ipm_with_the_mean_is_negative(case: tuple[int, Updates], epsilon: float) -> None:
    num_items, updates = case
    for seen in parts(clean_statistics(updates, num_items)):
        sent = InnerProduct(InnerProduct.Params(epsilon=epsilon)).poisoned(view(InnerProduct.card, num_items), seen)
        length = seen.mean.double().square().sum()
        assert torch.allclose((sent.double() * seen.mean.double()).sum(), -epsilon * length, rtol=1e-4)


def laid_out(updates: Updates, num_items: int) -> torch.Tensor:
    """float64 [n, M d + ...]: whole uploads."""
    explicit = updates.explicit()
    table = torch.zeros(len(updates.clients), num_items, SIZE)
    rows = explicit.all_rows()
    table[rows.client, rows.item] = rows.values
    return torch.cat([table.flatten(1), explicit.dense.stacked()["W"].flatten(1)], 1).double()


@settings(max_examples=60, deadline=None)
@given(
    case=uploads(),
    cls=st.sampled_from([MinMax, MinSum]),
    direction=st.sampled_from(["std", "unit", "sign"]),
)
def test_bounded_uploads_are_as_far_out_as_they_may_be(
    case: tuple[int, Updates], cls: type[DistanceBounded], direction: str
) -> None:
    num_items, updates = case
    made = cls(cls.Params(direction=direction))
    items, dense = made.made_of(view(cls.card, num_items), updates)
    sent = torch.cat([items.flatten(), dense["W"].flatten()]).double()
    x = laid_out(updates, num_items)
    mean = x.mean(0)

    def farness(upload: torch.Tensor) -> torch.Tensor:
        return torch.cdist(x, upload[None]).max() if cls is MinMax else (upload - mean).norm()

    most = torch.cdist(x, x).max() if cls is MinMax else (x - mean).norm(dim=1).max()
    assert bool(torch.isfinite(sent).all())
    room = 1e-5 * (sent.norm() + most)
    assert farness(sent) <= most + room
    if (sent - mean).norm() > room:
        assert farness(mean + 1.1 * (sent - mean)) > most - room


@settings(max_examples=30, deadline=None)
@given(case=uploads(), seed=st.integers(0, 99))
def test_gaussian_noise_has_mean_and_spread(case: tuple[int, Updates], seed: int) -> None:
    num_items, updates = case
    m = 2000
    for seen in parts(clean_statistics(updates, num_items)):
        sent = Gaussian(Gaussian.Params()).poisoned(view(Gaussian.card, num_items, m, seed), seen)
        # Six standard errors.
        assert bool(((sent.mean(0) - seen.mean).abs() <= 6 * seen.std / m**0.5 + 1e-5 * seen.mean.abs()).all())
        off = (sent.std(0) - seen.std).abs()
        assert bool((off <= 6 * seen.std / (2 * m) ** 0.5 + 1e-5 * seen.mean.abs()).all())


@settings(max_examples=60, deadline=None)
@given(case=uploads(), m=st.integers(1, 4))
def test_an_upload_of_all_items_sums_to_m_times_itself(case: tuple[int, Updates], m: int) -> None:
    num_items, updates = case
    seen = clean_statistics(updates, num_items)
    dense = {name: each.mean for name, each in seen.dense.items()}
    sent = upload_of_all_items(view(Lie.card, num_items, m), seen.items.mean, dense, torch.ones(m))
    assert torch.allclose(sent.sum_rows(num_items, SIZE), m * seen.items.mean, rtol=1e-5)
    key = sent.all_rows().client * num_items + sent.all_rows().item
    assert key.tolist() == list(range(m * num_items))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Batch, int]:
    """The rows of one to four clients with zero to five positives each, and M."""
    num_items = draw(st.integers(2, 15))
    degrees = draw(st.lists(st.integers(0, min(5, num_items - 1)), min_size=1, max_size=4))
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    user = torch.arange(len(degrees)).repeat_interleave(torch.tensor(degrees))
    chosen = [torch.randperm(num_items, generator=g)[:k].sort().values for k in degrees]
    negatives = draw_negatives(user, torch.cat(chosen), len(degrees), num_items, draw(st.integers(1, 3)), g)
    rows = TrainingRows.build(user, torch.cat(chosen), negatives, len(degrees), num_items, draw(st.booleans()))
    return rows.select(torch.arange(len(degrees))), num_items


@settings(max_examples=60, deadline=None)
@given(case=batches(), seed=st.integers(0, 99))
def test_flipped_labels_push_every_pair_the_other_way(case: tuple[Batch, int], seed: int) -> None:
    batch, _ = case
    logits = torch.randn(len(batch.item), generator=torch.Generator().manual_seed(seed))
    loss = Loss("bce" if batch.pair_positive is None else "bpr")
    honest, turned = (loss.derivative(logits, each)[0] for each in (batch, flipped(batch)))
    # -log sigma(x) and -log sigma(-x) differ by x: their derivatives by exactly 1 a sample or pair.
    if batch.pair_positive is None:
        gap = (2 * batch.positive - batch.weight) / batch.size[batch.client]
    else:
        assert batch.pair_negative is not None
        share = 1 / torch.bincount(batch.client[batch.pair_positive], minlength=len(batch.clients)).clamp(min=1)
        gap = torch.zeros_like(logits)
        gap.index_add_(0, batch.pair_positive, share[batch.client[batch.pair_positive]])
        gap.index_add_(0, batch.pair_negative, -share[batch.client[batch.pair_negative]])
    assert torch.allclose(turned - honest, gap, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(case=batches(), pool=st.none() | st.integers(1, 20), seed=st.integers(0, 99))
def test_hard_samples_are_as_many_as_before_and_harder(case: tuple[Batch, int], pool: int | None, seed: int) -> None:
    batch, num_items = case
    g = torch.Generator().manual_seed(seed)
    scores = torch.randn(len(batch.clients), num_items, generator=g)
    hard = hardest(batch, scores.argsort(dim=1, descending=True), FedAttack.Params(pool=pool), g)
    assert torch.equal(hard.size, batch.size)
    key = hard.client * num_items + hard.item
    assert bool((key[1:] > key[:-1]).all())
    if batch.pair_positive is not None:
        assert hard.pair_positive is not None
        assert hard.pair_negative is not None
        assert torch.equal(hard.client[hard.pair_positive], batch.client[batch.pair_positive])
        margins = [scores[hard.client[row], hard.item[row]] for row in (hard.pair_positive, hard.pair_negative)]
        assert bool((margins[0] <= margins[1]).all())
    else:
        for column in ("positive", "weight"):
            sums = [
                torch.zeros(len(batch.clients)).index_add_(0, each.client, getattr(each, column))
                for each in (batch, hard)
            ]
            assert torch.equal(*sums)


@settings(max_examples=60, deadline=None)
@given(num_items=st.integers(1, 20), seed=st.integers(0, 999), factor=st.sampled_from([0.5, 2.0]))
def test_the_similarity_gradient_sums_to_zero_and_scales(num_items: int, seed: int, factor: float) -> None:
    items = torch.randn(num_items, SIZE, generator=torch.Generator().manual_seed(seed))
    near, far = extremes(items)
    if num_items > 1:
        assert not bool((near == torch.arange(num_items)).any())
        assert not bool((far == torch.arange(num_items)).any())
        products = items @ items.T
        index = torch.arange(num_items)
        assert bool((products[index, near] >= products[index, far] - 1e-5).all())
    gradient = similarity_gradient(items, near, far, 1)
    # L depends on differences alone.
    assert torch.allclose(gradient.sum(0), torch.zeros(SIZE), atol=1e-4)
    assert torch.allclose(similarity_gradient(items * factor, near, far, 1), gradient * factor, rtol=1e-5)
