"""The embedded synthetic datasets: long-tailed popularity, latent taste, heavy-tailed activity, known order of time.

Generative model (ours; all draws from a fixed seed, so the data are the same everywhere):

- item j has the popularity w_j = (r_j + 1 + shift)^-exponent, Zipf-Mandelbrot over a random ranking r;
- every item belongs to one of G genres, drawn uniformly; q_gj is w_j restricted to genre g and normalised, and
  q_0j is w_j over all items;
- user u has a favourite list of three genres, drawn without order from G, with the shares ``taste``; what is left of
  1 goes to q_0. So P(j | u) = sum_g pi_ug q_gj: popularity x taste, a preference matrix of rank G + 1;
- the length of u is minimum + lognormal(mu, sigma), cut at a quarter of the items; mu is solved for the wanted mean;
- u draws from P(. | u) until it has that many different items; the order of the draws is the order of time. As in
  real data, what a user takes last is therefore less popular, on average, than what the user took first.

Calibrated against MovieLens-100K (popularity ranking HR@10 0.41, MF 0.56; leave-one-out, 99 negatives): ranking by
popularity gives 0.39 / 0.41 / 0.41 on small / 100k / 1m, and MF (d = 32, BCE, learning rate 1, sum over 256 clients)
0.59 after 60 epochs, 0.57 after 80, 0.59 after 40. With 5 % malicious clients a mid-tail target reaches ER@10 of
0.11 / 0.24 (100k / small) under explicit boosting, and 0.88 / 0.84 when the 50 most popular items stand in for users
as in PIECK-UEA, at epoch 100; on MovieLens-100K 0.26 and 0.80. One seed each.

Everything is drawn in blocks of users with whole-array operations: memory is bounded by the block (under 200 MB)
plus the result (8 bytes an interaction). Weights are integers and all choices compare integers, so the result
does not depend on the rounding of the machine's mathematical library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.data.records import Interactions, Table
from fedbench.data.streams import stream

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

SEED = 20240101
"""The catalogue's seed: changing it makes other datasets."""

_FIXED = 1 << 20
"""Integer weight of the most popular item, and of a whole user's taste."""

_CELLS = 1 << 24
"""(user, item) cells of a block of users: bounds the memory, and is part of the recipe."""


@dataclass(frozen=True)
class Shape:
    """Size and statistics of one synthetic dataset."""

    name: str
    num_users: int
    num_items: int
    mean_length: float
    minimum_length: int
    sigma: float
    """Spread of the logarithm of the length above the minimum."""
    num_genres: int
    exponent: float
    """Decay of popularity with rank."""
    shift: float
    """Ranks over which popularity is nearly flat."""
    taste: tuple[float, float, float]
    """Shares of a user's three favourite genres; the rest is general popularity."""


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("longtail-small", 300, 400, 41.2, 12, 0.8, 5, 2.5, 50.0, (0.75, 0.2, 0.03)),
        Shape("longtail-100k", 943, 1_682, 111.6, 19, 1.0, 10, 2.0, 150.0, (0.45, 0.25, 0.15)),
        Shape("longtail-1m", 6_040, 3_706, 171.0, 19, 1.0, 16, 2.0, 300.0, (0.45, 0.25, 0.15)),
        Shape("longtail-huge", 1_000_000, 200_000, 50.0, 9, 1.0, 64, 1.5, 1_000.0, (0.45, 0.25, 0.15)),
    )
}


def generate(shape: Shape) -> Table:
    """The unsplit table of a synthetic dataset."""
    items = _Items(shape)
    lengths = _lengths(shape)
    block = max(1, min(_CELLS // shape.num_items, shape.num_users, 1 << 16))
    scratch = _Scratch(block * shape.num_items)
    users_out: list[Int32] = []
    items_out: list[Int32] = []
    for start in range(0, shape.num_users, block):
        user, item = _draw_block(shape, items, lengths[start : start + block], start, scratch)
        users_out.append(user)
        items_out.append(item)
    return Table(
        parts={"all": Interactions(_join(users_out), _join(items_out))},
        num_users=shape.num_users,
        num_items=shape.num_items,
        ordered=True,
        order="in the order in which the generator made them",
    )


def _join(blocks: list[Int32]) -> Int32:
    """Concatenate and release the blocks one by one, so that they and the result are not all alive together."""
    out = np.empty(sum(map(len, blocks)), dtype=np.int32)
    place = 0
    blocks.reverse()
    while blocks:
        part = blocks.pop()
        out[place : place + len(part)] = part
        place += len(part)
    return out


def item_traits(shape: Shape) -> tuple[Int64, Int64]:
    """Rank by popularity (0: the most popular) and genre of every item: int64 [num_items] each."""
    rng = stream(SEED, shape.name, "items")
    rank = np.argsort(rng.random(shape.num_items), kind="stable")
    return rank, rng.integers(0, shape.num_genres, shape.num_items)


class _Items:
    """Items laid out for drawing: once in order of id for q_0, then grouped by genre, with running integer weights."""

    def __init__(self, shape: Shape) -> None:
        rank, genre = item_traits(shape)
        weight = (rank + 1 + shape.shift) ** -shape.exponent
        weight = np.maximum(np.rint(weight / weight.max() * _FIXED).astype(np.int64), 1)
        grouped = np.argsort(genre, kind="stable")
        self.order: Int32 = np.concatenate([np.arange(shape.num_items), grouped]).astype(np.int32)
        self.ends: Int64 = np.cumsum(np.concatenate([weight, weight[grouped]]))
        total = int(weight.sum())
        mass = np.bincount(genre, weights=weight, minlength=shape.num_genres).astype(np.int64)
        self.mass: Int64 = np.concatenate([[total], mass])
        self.base: Int64 = np.concatenate([[0], total + np.cumsum(mass) - mass])

    def draw(self, genre: Int64, rng: np.random.Generator) -> Int32:
        """One item for every entry of ``genre`` (0 = all items, g + 1 = genre g), by weight."""
        point = self.base[genre] + rng.integers(0, np.maximum(self.mass[genre], 1))
        drawn: Int32 = self.order[np.searchsorted(self.ends, point, side="right")]
        return drawn


def _lengths(shape: Shape) -> Int64:
    """Interactions per user: [num_users]."""
    above = shape.mean_length - shape.minimum_length
    normal = stream(SEED, shape.name, "lengths").standard_normal(shape.num_users)
    scale = np.exp(shape.sigma * normal)
    length = shape.minimum_length + np.rint(scale * (above / scale.mean())).astype(np.int64)
    cut: Int64 = np.minimum(length, shape.num_items // 4)
    return cut


def _draw_block(shape: Shape, items: _Items, lengths: Int64, first: int, scratch: _Scratch) -> tuple[Int32, Int32]:
    """User and item of every interaction of a block of users, grouped by user, oldest first."""
    rng = stream(SEED, shape.name, "block", first)
    favourites = _favourites(shape, len(lengths), rng)
    bounds = np.rint(np.cumsum(shape.taste) * _FIXED).astype(np.int64)
    chosen: list[Int64] = []
    missing = lengths.copy()
    attempt = 0
    while missing.any():
        user = np.repeat(np.arange(len(lengths)), missing << min(attempt, 8))
        attempt += 1
        slot = np.searchsorted(bounds, rng.integers(0, _FIXED, len(user)), side="right")
        drawn = user * shape.num_items + items.draw(favourites[user, slot], rng)
        fresh = scratch.fresh(drawn)
        owner = fresh // shape.num_items
        counts = np.bincount(owner, minlength=len(lengths))
        place = np.arange(len(fresh)) - (np.cumsum(counts) - counts)[owner]
        kept = fresh[place < missing[owner]]
        scratch.taken[kept] = True
        chosen.append(kept)
        missing -= np.minimum(counts, missing)
    keys = np.concatenate(chosen)
    scratch.taken[keys] = False
    owner = keys // shape.num_items
    order = np.argsort(owner.astype(np.uint16), kind="stable")
    owner, keys = owner[order], keys[order]
    return (owner + first).astype(np.int32), (keys - owner * shape.num_items).astype(np.int32)


class _Scratch:
    """Two tables over the (user, item) cells of a block, made once and used for every block."""

    def __init__(self, cells: int) -> None:
        self.taken = np.zeros(cells, dtype=bool)
        """Whether the user has the item already."""
        self._first = np.empty(cells, dtype=np.int32)

    def fresh(self, drawn: Int64) -> Int64:
        """The drawn cells that are not taken, each at its first occurrence only, in the order of the draws."""
        drawn = drawn[~self.taken[drawn]]
        index = np.arange(len(drawn), dtype=np.int32)
        self._first[drawn[::-1]] = index[::-1]
        distinct: Int64 = drawn[self._first[drawn] == index]
        return distinct


def _favourites(shape: Shape, num_users: int, rng: np.random.Generator) -> Int64:
    """Three different genres of every user, numbered from 1, then 0 for general popularity: [num_users, 4]."""
    count = shape.num_genres
    one = rng.integers(0, count, num_users)
    two = (one + 1 + rng.integers(0, count - 1, num_users)) % count
    three = (one + 1 + rng.integers(0, count - 1, num_users)) % count
    clash = three == two
    while clash.any():
        three[clash] = (one[clash] + 1 + rng.integers(0, count - 1, int(clash.sum()))) % count
        clash = three == two
    return np.stack([one + 1, two + 1, three + 1, np.zeros(num_users, dtype=np.int64)], axis=1)
