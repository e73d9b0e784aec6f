"""What must hold of ClusterAttack and Spattack whatever the embeddings and the uploads are."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbench.attacks.cluster_attack import AdaptiveClusters, ClusterAttack, k_means, norm_statistics
from fedbench.attacks.spattack import OmniscientSpattack
from fedbench.federation import server
from fedbench.federation.batch import Batch
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates, concat
from fedbench.federation.view import AttackerView, HonestStep, RoundState, Surroundings
from fedbench.models import MODELS, PublicParams

SEEDS = st.integers(0, 2**31)


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def uploads(draw: st.DrawFn, num_items: int, size: int, scale: float) -> Updates:
    """Uploads of up to five clients over items of size 3, with or without an L2 term in common."""
    g = stream(draw(SEEDS))
    n = draw(st.integers(1, 5))
    client, item = (torch.rand(n, num_items, generator=g) < draw(st.sampled_from([0.0, 0.4, 1.0]))).nonzero().T
    common = draw(st.sampled_from([None, 0.01, 1.0]))
    return Updates(
        torch.arange(n),
        (FullRows(client, item, torch.randn(len(item), size, generator=g) * scale),),
        DenseGradients.of({}),
        torch.randint(1, 40, (n,), generator=g).float(),
        None if common is None else Common(common * torch.randn(num_items, size, generator=g), torch.ones(n)),
    )


class Own:
    """The attacker's own honest uploads, as given."""

    def __init__(self, sampled: Updates, all_of_them: Updates) -> None:
        self.sampled, self.all_of_them = sampled, all_of_them

    def step(self) -> HonestStep:
        nothing = torch.zeros(len(self.sampled.clients), 3)
        return HonestStep(self.sampled, nothing)

    def batch(self) -> Batch:
        none = torch.zeros(0, dtype=torch.int64)
        starts = torch.zeros(len(self.sampled.clients) + 1, dtype=torch.int64)
        return Batch(self.sampled.clients, starts, none, none, torch.zeros(0), torch.zeros(0), self.sampled.weights)

    def users(self) -> torch.Tensor:
        return torch.zeros(len(self.sampled.clients), 3)

    def trained(self, batch: Batch) -> Updates:
        return self.sampled

    def colluding(self, count: int) -> Updates:
        return self.all_of_them


def view_of(
    attack: type[ClusterAttack] | type[OmniscientSpattack],
    items: torch.Tensor,
    sampled: Updates,
    all_of_them: Updates,
    aggregation: str = "sum",
    honest: Updates | None = None,
    seed: int = 0,
) -> AttackerView:
    mf = MODELS.get("mf")
    m = len(sampled.clients)
    surroundings = Surroundings(
        mf(mf.Params(embedding_size=items.shape[1])),
        len(items),
        m,
        0.1,
        aggregation,
        torch.zeros(0, dtype=torch.int64),
        torch.device("cpu"),
        stream(seed),
    )
    state = RoundState(PublicParams(items, {}), torch.arange(m), 1, 0, Own(sampled, all_of_them), honest)
    return AttackerView(attack.card, surroundings, state=state)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    num_items=st.integers(1, 30),
    scale=st.sampled_from([1e-3, 1.0, 100.0]),
    clusters=st.integers(1, 50),
    norm=st.sampled_from(["rescale", "clip"]),
    seed=SEEDS,
)
def test_no_row_is_longer_than_its_bound_and_rescaled_ones_have_it(
    data: st.DataObject, num_items: int, scale: float, clusters: int, norm: str, seed: int
) -> None:
    items = torch.randn(num_items, 3, generator=stream(seed))
    sampled, colluding = (data.draw(uploads(num_items, 3, scale)) for _ in range(2))
    made = ClusterAttack(ClusterAttack.Params(initial_clusters=clusters, norm=norm))
    view = view_of(ClusterAttack, items, sampled, colluding, seed=seed)
    made.start(view)
    labels, centroids = k_means(items, min(clusters, num_items), made._seeding.clone_state())
    gradient = 2 * (items - centroids[labels]) / min(clusters, num_items)
    rows = made.craft(view).all_rows()
    mean, deviation = (float(x) for x in norm_statistics(colluding, num_items))
    sent, own = rows.values.norm(dim=1), gradient.norm(dim=1)[rows.item]
    assert len(rows.item) == len(sampled.clients) * num_items
    assert bool((sent <= (mean + 3 * deviation) * (1 + 1e-5)).all())
    long = own > 1e-3  # rounding of a centroid apart, such rows are not zero
    if norm == "rescale":
        assert bool((sent[long] >= mean * (1 - 1e-4)).all())
    else:
        assert bool((sent <= own * (1 + 1e-5)).all())
        assert bool((sent[long] >= own[long].clamp(max=mean) * (1 - 1e-5)).all())
    along = (rows.values * gradient[rows.item]).sum(1)
    assert torch.allclose(along[long], (sent * own)[long], rtol=1e-3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_items=st.integers(1, 12))
def test_norm_statistics_are_those_of_the_written_out_rows(data: st.DataObject, num_items: int) -> None:
    updates = data.draw(uploads(num_items, 3, 1.0))
    written = updates.explicit()
    table = torch.zeros(len(updates.clients) * num_items)
    for block in written.rows:
        table[block.client * num_items + block.item] = block.norms()
    mean, deviation = (float(x) for x in norm_statistics(updates, num_items))
    assert math.isclose(mean, float(table.double().mean()), rel_tol=1e-4, abs_tol=1e-6)
    expected = float(table.double().std()) if len(table) > 1 else 0.0
    assert math.isclose(deviation, expected, rel_tol=1e-3, abs_tol=1e-3 * mean)


@settings(max_examples=100, deadline=None)
@given(
    losses=st.lists(st.floats(0, 1e6), max_size=80),
    start=st.integers(1, 50),
    threshold=st.integers(1, 4),
    growth=st.sampled_from([0.0, 0.3]),
    decay=st.sampled_from([0.0, 0.5, 0.999]),
    floor=st.booleans(),
)
def test_k_is_a_whole_number_in_its_range(
    losses: list[float], start: int, threshold: int, growth: float, decay: float, floor: bool
) -> None:
    k = AdaptiveClusters(start, 1, 50, threshold, growth, decay, math.floor if floor else round)
    for loss in losses:
        before = k.count
        k.advance(loss)
        assert isinstance(k.count, int)
        assert 1 <= k.count <= 50
        assert abs(k.rises - k.falls) < k.threshold
        assert k.count == before or k.steps == 0


@settings(max_examples=60, deadline=None)
@given(num_items=st.integers(1, 40), count=st.integers(1, 40), seed=SEEDS, shift=st.sampled_from([0.5, -3.0]))
def test_clusters_move_with_the_points_and_are_optimal_for_their_labels(
    num_items: int, count: int, seed: int, shift: float
) -> None:
    count = min(count, num_items)
    # Multiples of 1/64 with few digits: distances before and after the shift are equal to the last bit.
    points = torch.randint(-256, 256, (num_items, 2), generator=stream(seed)).float() / 64
    labels, centroids = k_means(points, count, stream(seed + 1))
    used = torch.unique(labels)
    means = torch.stack([points[labels == k].mean(0) for k in used])
    assert torch.allclose(centroids[used], means, atol=1e-5)
    distances = torch.cdist(points, centroids, compute_mode="donot_use_mm_for_euclid_dist")
    assert bool((distances.gather(1, labels[:, None])[:, 0] <= distances.min(1).values + 1e-3).all())
    moved = k_means(points + shift, count, stream(seed + 1))
    energy, same = (
        float((p - c[a]).square().sum()) for p, (a, c) in ((points, (labels, centroids)), (points + shift, moved))
    )
    if torch.equal(labels, moved[0]):  # a tie may fall otherwise after rounding
        assert torch.allclose(moved[1], centroids + shift, atol=1e-4)
        assert math.isclose(energy, same, rel_tol=1e-3, abs_tol=1e-3)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), num_items=st.integers(1, 20), aggregation=st.sampled_from(["sum", "mean", "weighted"]))
def test_the_omniscient_attacker_leaves_no_gradient(data: st.DataObject, num_items: int, aggregation: str) -> None:
    honest, sampled = (data.draw(uploads(num_items, 3, 1.0)) for _ in range(2))
    items = torch.zeros(num_items, 3)
    view = view_of(OmniscientSpattack, items, sampled, sampled, aggregation, honest)
    made = OmniscientSpattack(OmniscientSpattack.Params())
    made.start(view)
    received = concat([honest, made.craft(view)])
    left = server.aggregate(received, view.params, aggregation).items
    assert bool((left.abs() < 1e-4).all())
