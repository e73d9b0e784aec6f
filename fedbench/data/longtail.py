"""The embedded synthetic datasets: long-tailed popularity, latent taste, heavy-tailed activity, known order of time.

Generative model (ours; all draws from a fixed seed, so that the data are the same everywhere):

- item j has the popularity w_j = (r_j + 1 + shift)^-exponent, Zipf-Mandelbrot over a random ranking r;
- every item belongs to one of G genres, drawn uniformly; q_gj is w_j restricted to genre g and normalised, and
  q_0j is w_j over all items;
- user u has a favourite list of three genres, drawn without order from G, with the shares ``taste``; what is left of
  1 goes to q_0. So P(j | u) = sum_g pi_ug q_gj: popularity x taste, a preference matrix of rank G + 1;
- the length of u is minimum + lognormal(mu, sigma), cut at a quarter of the items; mu is solved for the wanted mean;
- u draws from P(. | u) until it has that many different items; the order of the draws, shuffled, is the order of time.

Everything is drawn in blocks of users with whole-array operations: memory is bounded by the block (about 200 bytes a
draw) plus the result (8 bytes an interaction). Weights are integers and all choices compare integers, so the result
does not depend on the rounding of the machine's mathematical library.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbench.data.records import Rows, Table
from fedbench.data.streams import stream

Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

SEED = 20240101
"""The catalogue's seed: changing it makes other datasets."""

_FIXED = 1 << 20
"""Integer weight of the most popular item, and of a whole user's taste."""


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
    taste: tuple[float, float, float] = (0.45, 0.25, 0.15)
    """Shares of a user's three favourite genres; the rest is general popularity."""


SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("longtail-small", 300, 400, 40.0, 12, 0.8, 8, 1.1, 20.0),
        Shape("longtail-100k", 943, 1_682, 106.0, 19, 1.0, 12, 1.3, 60.0),
        Shape("longtail-1m", 6_040, 3_706, 165.6, 19, 1.0, 16, 1.3, 120.0),
        Shape("longtail-huge", 1_000_000, 200_000, 50.0, 9, 1.0, 64, 1.1, 400.0),
    )
}


def generate(shape: Shape, *, block: int = 50_000) -> Table:
    """The unsplit table of a synthetic dataset.

    Args:
        shape: its size and statistics.
        block: users drawn together; bounds the memory, and is part of the recipe: another block size gives other
            draws, so only tests change it.
    """
    items = _Items(shape)
    lengths = _lengths(shape)
    users_out: list[Int32] = []
    items_out: list[Int32] = []
    for start in range(0, shape.num_users, block):
        stop = min(start + block, shape.num_users)
        user, item = _draw_block(shape, items, lengths[start:stop], start)
        users_out.append(user)
        items_out.append(item)
    return Table(
        parts={"all": Rows(_join(users_out), _join(items_out))},
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


class _Items:
    """Items laid out for drawing: once in order of id for q_0, then grouped by genre, with running integer weights."""

    def __init__(self, shape: Shape) -> None:
        rng = stream(SEED, shape.name, "items")
        rank = np.argsort(rng.random(shape.num_items), kind="stable")
        weight = (rank + 1 + shape.shift) ** -shape.exponent
        weight = np.maximum(np.rint(weight / weight.max() * _FIXED).astype(np.int64), 1)
        genre = rng.integers(0, shape.num_genres, shape.num_items)
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


def _draw_block(shape: Shape, items: _Items, lengths: Int64, first: int) -> tuple[Int32, Int32]:
    """User and item of every interaction of a block of users, grouped by user, oldest first."""
    rng = stream(SEED, shape.name, "block", first)
    favourites = _favourites(shape, len(lengths), rng)
    bounds = np.rint(np.cumsum(shape.taste) * _FIXED).astype(np.int64)
    keys = np.empty(0, dtype=np.int64)
    missing = lengths.copy()
    while missing.any():
        user = np.repeat(np.arange(len(lengths)), missing + missing // 2 + 1)
        user = user[missing[user] > 0]
        slot = np.searchsorted(bounds, rng.integers(0, _FIXED, len(user)), side="right")
        genre = favourites[user, slot]
        drawn = user * shape.num_items + items.draw(genre, rng)
        fresh = _first_of_each(drawn)
        fresh = fresh[~np.isin(fresh, keys, kind="sort")]
        owner = fresh // shape.num_items
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=len(lengths))
        place = np.empty(len(fresh), dtype=np.int64)
        place[order] = np.arange(len(fresh)) - (np.cumsum(counts) - counts)[owner[order]]
        keys = np.concatenate([keys, fresh[place < missing[owner]]])
        missing -= np.minimum(counts, missing)
    keys.sort()
    owner = keys // shape.num_items
    keys = keys[np.lexsort((rng.random(len(keys)), owner))]
    owner = keys // shape.num_items
    return (owner + first).astype(np.int32), (keys - owner * shape.num_items).astype(np.int32)


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


def _first_of_each(keys: Int64) -> Int64:
    """The distinct keys in the order of their first occurrence."""
    _, where = np.unique(keys, return_index=True)
    where.sort()
    distinct: Int64 = keys[where]
    return distinct
