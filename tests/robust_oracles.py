"""Plain, slow, obviously right versions of the robust rules: one item, one coordinate, one gradient at a time.

A rule takes a list of vectors, sorted by client id, and f, and gives what stands for their sum. ``by_item`` and ``by_client``
apply it to a round in both scopes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fedbench.defenses import DEFENSES, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates

Vectors = list[np.ndarray]
Rule = Callable[[Vectors, int], np.ndarray]


def median(x: Vectors, f: int) -> np.ndarray:
    return len(x) * np.median(np.stack(x), axis=0)


def trimmed_mean(x: Vectors, f: int) -> np.ndarray:
    result = []
    for column in np.stack(x).T:
        kept = sorted(column)[f : len(x) - f]
        result.append(len(x) * sum(kept) / len(kept))
    return np.array(result)


def nearest_to_median(x: Vectors, keep: int) -> np.ndarray:
    """The mean of the ``keep`` values of each coordinate nearest to the median; ties at the cut share their places."""
    result = []
    for column in np.stack(x).T:
        distance = np.abs(column - np.median(column))
        cut = np.sort(distance)[keep - 1]
        inside, tied = column[distance < cut], column[distance == cut]
        result.append((inside.sum() + tied.mean() * (keep - len(inside))) / keep)
    return np.array(result)


def trimmed_mean_published(x: Vectors, f: int) -> np.ndarray:
    return len(x) * nearest_to_median(x, len(x) - f)


def krum_scores(x: Vectors, f: int, published: bool) -> list[float]:
    scores = []
    for i in range(len(x)):
        squares = sorted(float(((x[i] - x[k]) ** 2).sum()) for k in range(len(x)) if k != i)
        if published:
            scores.append(sum(math.sqrt(each) for each in squares[: len(x) - f]))
        else:
            scores.append(sum(squares[: max(len(x) - f - 2, 1)]))
    return scores


def krum(x: Vectors, f: int, published: bool = False) -> np.ndarray:
    if len(x) < 2 * f + 1:
        return sum(x)
    scores = krum_scores(x, f, published)
    return len(x) * x[scores.index(min(scores))]


def multi_krum(x: Vectors, f: int) -> np.ndarray:
    if len(x) < 2 * f + 1:
        return sum(x)
    scores = krum_scores(x, f, False)
    best = sorted(range(len(x)), key=lambda i: (scores[i], i))[: len(x) - f]
    return len(x) * sum(x[i] for i in best) / len(best)


def selected(x: Vectors, f: int, published: bool) -> Vectors:
    """The winners of Krum, repeated on what is left."""
    left, winners = list(x), []
    for _ in range(len(x) - 2 * f):
        scores = krum_scores(left, f, published)
        winners.append(left.pop(scores.index(min(scores))))
    return winners


def multi_krum_published(x: Vectors, f: int) -> np.ndarray:
    return sum(x) if len(x) < 4 * f + 3 else sum(selected(x, f, True))


def bulyan(x: Vectors, f: int, published: bool = False) -> np.ndarray:
    if len(x) < 4 * f + 3:
        return sum(x)
    winners = selected(x, f, published)
    return (len(winners) if published else len(x)) * nearest_to_median(winners, len(x) - 4 * f)


def geometric_median(x: Vectors, f: int, steps: int = 3, nu: float = 1e-6) -> np.ndarray:
    middle = sum(x) / len(x)
    for _ in range(steps):
        near = [1 / max(nu, float(np.linalg.norm(each - middle))) for each in x]
        middle = sum(b * each for b, each in zip(near, x, strict=True)) / sum(near)
    return len(x) * middle


def mixed(x: Vectors, f: int) -> np.ndarray:
    return 0.7 * geometric_median(x, f, 4, 1e-5) + 0.3 * sum(x)


def foolsgold_factors(x: Vectors) -> list[float]:
    cosines = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        for k in range(len(x)):
            lengths = np.linalg.norm(x[i]) * np.linalg.norm(x[k])
            if i != k and lengths > 0:
                cosines[i, k] = x[i] @ x[k] / lengths
    most = np.maximum(cosines.max(1), 1e-15)
    for i in range(len(x)):
        for k in range(len(x)):
            if most[k] > most[i]:
                cosines[i, k] *= most[i] / most[k]
    value = np.clip(1 - cosines.max(1), 0, 1)
    if value.max() == 0:
        return [0.0] * len(x)
    value = np.minimum(value / value.max(), 0.99)
    with np.errstate(divide="ignore"):
        return list(np.clip(np.log(value / (1 - value)) + 0.5, 0, 1))


def foolsgold(x: Vectors, f: int) -> np.ndarray:
    return sum(a * each for a, each in zip(foolsgold_factors(x), x, strict=True))


def dnc(x: Vectors, f: int) -> np.ndarray:
    centred = np.stack(x) - np.mean(x, axis=0)
    top = np.linalg.svd(centred, full_matrices=False)[2][0]
    kept = np.argsort((centred @ top) ** 2, kind="stable")[: len(x) - f]
    return len(x) * np.stack(x)[kept].mean(0)


RULES: dict[tuple[str, str], Rule] = {
    ("median", ""): median,
    ("trimmed-mean", "ends"): trimmed_mean,
    ("trimmed-mean", "nearest-median"): trimmed_mean_published,
    ("krum", "definition"): krum,
    ("krum", "icde24-code"): lambda x, f: krum(x, f, True),
    ("multi-krum", "definition"): multi_krum,
    ("multi-krum", "icde24-code"): multi_krum_published,
    ("bulyan", "definition"): bulyan,
    ("bulyan", "icde24-code"): lambda x, f: bulyan(x, f, True),
    ("rfa", ""): geometric_median,
    ("foolsgold", ""): foolsgold,
    ("dnc", ""): dnc,
    ("mixed", ""): mixed,
}
"""Every rule with its variants."""


def by_item(updates: Updates, num_items: int, size: int, share: float, rule: Rule) -> dict[str, np.ndarray]:
    """The rule over the rows of each item, and over each dense tensor."""
    rows = _rows(updates)
    items = np.zeros((num_items, size))
    for item in range(num_items):
        own = [vector for _, each, vector in rows if each == item]
        if own:
            items[item] = rule(own, _assumed(math.floor(len(own) * share + 1e-9), len(own)))
    result = {"items": items}
    order = np.argsort(updates.clients.numpy())
    for name, value in updates.dense.stacked().items():
        flat = list(value.double().flatten(1).numpy()[order])
        f = _assumed(math.floor(len(flat) * share + 1e-9), len(flat))
        result[name] = rule(flat, f).reshape(value.shape[1:])
    return result


def by_client(updates: Updates, num_items: int, size: int, share: float, rule: Rule) -> dict[str, np.ndarray]:
    """The rule over whole updates, laid out over all items."""
    n = len(updates.clients)
    whole = np.zeros((n, num_items, size))
    for client, item, vector in _rows(updates):
        whole[client, item] = vector
    dense = {name: value.double().flatten(1).numpy() for name, value in updates.dense.stacked().items()}
    order = np.argsort(updates.clients.numpy())
    vectors = [np.concatenate([whole[i].ravel(), *(each[i] for each in dense.values())]) for i in order]
    total = rule(vectors, _assumed(math.ceil(n * share - 1e-9), n))
    result = {"items": total[: num_items * size].reshape(num_items, size)}
    start = num_items * size
    for name, value in updates.dense.stacked().items():
        length = dense[name].shape[1]
        result[name] = total[start : start + length].reshape(value.shape[1:])
        start += length
    return result


def _assumed(f: int, count: int) -> int:
    return min(f, (count - 1) // 2)


def _rows(updates: Updates) -> list[tuple[int, int, np.ndarray]]:
    """(client index, item, gradient), by client id."""
    rows = updates.all_rows()
    clients = updates.clients.tolist()
    found = [
        (int(client), int(item), vector.double().numpy())
        for client, item, vector in zip(rows.client, rows.item, rows.values, strict=True)
    ]
    return sorted(found, key=lambda row: clients[row[0]])


def full(updates: Updates, num_items: int) -> torch.Tensor:
    """[n, M, d]: every client's whole upload of item rows."""
    rows = updates.explicit().all_rows()
    table = torch.zeros(len(updates.clients), num_items, rows.values.shape[1])
    for client, item, value in zip(rows.client.tolist(), rows.item.tolist(), rows.values, strict=True):
        table[client, item] += value
    return table


def make_updates(
    n: int,
    num_items: int,
    size: int,
    seed: int,
    density: float = 0.6,
    dense: bool = True,
    whole_numbers: bool = False,
    copies: int = 0,
) -> Updates:
    """A round of random uploads.

    Args:
        n: clients, with ids in no order. num_items, size: M and d. seed: of everything.
        density: share of the items that a client touches. dense: with two dense tensors.
        whole_numbers: small integers, so that ties are frequent and sums exact. copies: so many last clients send the same.
    """
    g = torch.Generator().manual_seed(seed)
    touched = torch.rand(n, num_items, generator=g) < density
    whole = torch.randn(n, num_items, size, generator=g)
    tensors = {"W1": torch.randn(n, 3, 2, generator=g), "b1": torch.randn(n, 3, generator=g)} if dense else {}
    if copies:
        touched[-copies:], whole[-copies:] = touched[-1], whole[-1] * 3
        for value in tensors.values():
            value[-copies:] = value[-1] * 3
    if whole_numbers:
        whole = (whole * 2).round()
        tensors = {name: (value * 2).round() for name, value in tensors.items()}
    client, item = touched.nonzero(as_tuple=True)
    shuffled = torch.randperm(len(client), generator=g)
    client, item = client[shuffled], item[shuffled]
    ids = torch.randperm(10 * n, generator=g)[:n]
    half = len(client) // 2
    blocks = tuple(
        FullRows(client[part], item[part], whole[client[part], item[part]])
        for part in (slice(None, half), slice(half, None))
    )
    return Updates(ids, blocks, DenseGradients.of(tensors), torch.ones(n))


def server_of(
    updates: Updates, num_items: int, size: int, ratio: float | None = None, aggregation: str = "sum"
) -> ServerView:
    """The view of a server that received ``updates``."""
    dense = {name: torch.zeros(value.shape[1:]) for name, value in updates.dense.stacked().items()}
    params = PublicParams(torch.zeros(num_items, size), dense)
    return ServerView(params, 1.0, aggregation, ratio, 1, 0, torch.Generator().manual_seed(0))


def aggregated(
    name: str, updates: Updates, num_items: int, size: int, ratio: float = 0.0, aggregation: str = "sum", **params: Any
) -> dict[str, np.ndarray]:
    """What the defense ``name`` makes of a round, in the form of the oracles."""
    cls = DEFENSES.get(name)
    server = server_of(updates, num_items, size, ratio, aggregation)
    total = cls(cls.Params(**params)).aggregate(updates, server)
    assert total is not None
    return {"items": total.items.double().numpy()} | {key: value.double().numpy() for key, value in total.dense.items()}


def variant_of(name: str, variant: str) -> dict[str, str]:
    """The parameters that choose a variant of :data:`RULES`."""
    return {} if not variant else {"trim" if name == "trimmed-mean" else "variant": variant}
