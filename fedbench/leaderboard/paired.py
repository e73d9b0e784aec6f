"""What paired runs say of two entries, and what all pairs say of a table: pure functions on arrays.

The values of an entry are an array float64 [scenarios, seeds], not a number where a run is missing; equal places of two
arrays are the same scenario and the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Values = NDArray[np.float64]
ByScenario = Mapping[Any, Mapping[int, float]]
"""The values of an entry by scenario and, in each, by seed."""

ALPHA = 0.05
"""Share of tables without any difference in which some pair is told apart: what the tests are made for.

How often it is, in tables drawn from real runs of equal entries: ``leaderboard/null/README.md``.
"""
POWER = 0.8
"""Probability with which a difference of the size of :func:`resolution` is found."""
ROUNDING = 9
"""Decimals of a difference that count: what is beyond comes from the arithmetic."""


@dataclass(frozen=True)
class Difference:
    """The paired difference of two entries.

    Attributes:
        estimate: mean over scenarios of the mean over seeds, None when they have nothing in common. low, high: its 95 %
            interval. se: standard error. df: degrees of freedom. p: two-sided. All five are None where no variation
            between seeds can be seen. scenarios, runs: how many are compared. lone: scenarios that are not, for they have a
            single seed in common where others have several.
    """

    estimate: float | None
    low: float | None
    high: float | None
    se: float | None
    df: float | None
    p: float | None
    scenarios: int
    runs: int
    lone: int = 0


def paired_difference(a: Values, b: Values) -> Difference:
    """How much higher ``a`` is than ``b``, over the scenarios and seeds that both have; see :func:`contrast`."""
    return contrast([a - b])


def compared(part: Values) -> NDArray[np.bool_]:
    """Which scenarios of paired differences [scenarios, seeds] count: those with several seeds or, without any, with one."""
    n = (~np.isnan(part)).sum(1)
    return (n > 1) if (n > 1).any() else n == 1


def spread(parts: Sequence[Values]) -> tuple[float, float] | None:
    """Standard error and degrees of freedom of the sum over parts of the mean over scenarios of the mean over seeds.

    The seeds are the units: whatever one seed draws (initial embeddings, cohorts, negatives, the attack's choices) moves all
    scenarios that share it, ratios of one target by nearly the same (their ER@10 correlates .9 and more), so that twelve
    scenarios of three seeds are three draws and not 36. Each seed adds one number, the sum ``r_j`` of what its runs differ
    from the means of their scenarios, with the weights that they have in the estimate; where all scenarios have the same
    ``n`` seeds, ``n r_j`` is how far the seed's own mean is from the mean of all, and this is the standard error of the mean
    of these ``n`` numbers, with ``n - 1`` degrees of freedom.

    Where runs are missing, the variance ``sum_j r_j^2`` is scaled to be unbiased, and the degrees of freedom are those of
    Bell and McCaffrey (Survey Methodology 28, 2002), for seeds that move all scenarios alike.

    Args:
        parts: float64 [scenarios, seeds] each, of the same seeds; not a number where a run is missing.

    Returns:
        None where no scenario has two seeds.
    """
    weights, r, centred = 0.0, 0.0, 0.0
    for part in parts:
        there = ~np.isnan(part)
        part, there = part[there.any(1)], there[there.any(1)]
        n, count = there.sum(1, keepdims=True), len(part)
        weight = there / n / count
        filled = np.where(there, part, 0.0)
        means = filled.sum(1, keepdims=True) / n
        weights = weights + weight.sum(0)
        r = r + (weight * np.where(there, filled - means, 0.0)).sum(0)
        centred = centred + np.diag(weight.sum(0)) - count * weight.T @ weight
    q = np.transpose(centred) @ centred
    if (trace := float(np.trace(q))) < 1e-12:
        return None
    variance = float(np.sum(weights**2) / trace * np.sum(r**2))
    return math.sqrt(variance), trace**2 / float((q**2).sum())


def contrast(parts: Sequence[Values]) -> Difference:
    """The sum over parts of the mean over scenarios of the mean over seeds, with a t interval and a two-sided t test of 0.

    Usually there is one part, the paired differences ``a - b``. The net of two defenses has several: the differences of what
    they prevent, and those of what they cost with the sign reversed.

    The suite's scenarios are taken as they are; what is asked is whether other seeds would say the same. So it is the t test
    over the seeds' means (:func:`spread`).

    - A scenario with a single common seed shows nothing of how far seeds differ there, and another's variance may be far from
      its own. Where other scenarios of the part have several, it counts in nothing, and in ``lone``.
    - Where no scenario has two common seeds there is no test, however many scenarios there are: they share their draws.
    - Where no seed differs from another, t is not defined. If the estimate is 0, p is 1. Otherwise (one entry at 0 % and the
      other at 100 %, in all of ``n`` seeds) p is ``2 / 4^n``: of two equal entries, which are independent given the seed, the
      one is at its high and the other at its low value with a probability of at most 1/4. Runs that are nearly saturated
      (99.9 beside 100) vary, and escape this.

    Args:
        parts: float64 [scenarios, seeds] each, of the same seeds; differences that are not a number where a run is missing.
    """
    estimate, scenarios, runs, lone, counted = 0.0, 0, 0, 0, []
    for part in parts:
        use = compared(part)
        if not use.any():
            return Difference(None, None, None, None, None, None, 0, 0)
        part = np.round(part, ROUNDING)
        lone += int((~np.isnan(part)).any(1).sum() - use.sum())
        part = part[use]
        estimate += float(np.nanmean(part, axis=1).mean())
        scenarios, runs = scenarios + len(part), runs + int((~np.isnan(part)).sum())
        counted.append(part)
    estimate = round(estimate, ROUNDING)
    if (found := spread(counted)) is None:
        return Difference(estimate, None, None, None, None, None, scenarios, runs, lone)
    se, df = found
    if se < 10.0**-ROUNDING:
        seeds = int((~np.isnan(np.concatenate(counted))).any(0).sum())
        p = 2 / 4**seeds if estimate else 1.0
        return Difference(estimate, estimate, estimate, 0.0, df, p, scenarios, runs, lone)
    half = float(special.stdtrit(df, (1 + 0.95) / 2)) * se
    p = float(2 * special.stdtr(df, -abs(estimate) / se))
    return Difference(estimate, estimate - half, estimate + half, se, df, p, scenarios, runs, lone)


def holm(pvalues: Sequence[float]) -> list[float]:
    """Adjusted p values of Holm (1979): ``max over j <= i of min(1, (m - j + 1) p_(j))``, in the order that was given.

    Calling significant what is at most 5 % errs, in one or more of the ``m`` tests, with a probability of at most 5 %,
    however they depend on each other.
    """
    order = sorted(range(len(pvalues)), key=lambda n: pvalues[n])
    adjusted, highest = [1.0] * len(pvalues), 0.0
    for step, n in enumerate(order):
        highest = max(highest, min(1.0, (len(pvalues) - step) * pvalues[n]))
        adjusted[n] = highest
    return adjusted


def rank_intervals(better: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """The ranks that the data leave open to each entry, first and last.

    ``1 + (number of entries significantly better)`` to ``n - (number of entries significantly worse)``: with Holm's tests
    over all pairs, all true ranks are inside at once with a probability of about 95 % (the confidence sets for ranks of
    Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks", Review of Economic Studies 91, 2024). Two entries that are
    not told apart share ranks: unless a third is better than one and worse than the other, the intervals overlap.

    Args:
        better: bool [entries, entries], whether the row's entry is significantly better than the column's.
    """
    above, below = better.sum(0), better.sum(1)
    return [(1 + int(a), len(better) - int(b)) for a, b in zip(above, below, strict=True)]


def resolution(differences: Sequence[Difference]) -> float | None:
    """The smallest difference that the runs of a table can resolve, for its typical pair, in the unit of the values.

    The median over pairs of ``(t_(1 - a / 2, df) + t_(0.8, df)) se`` with ``a = 5 % / number of pairs``, the first step of
    Holm: a true difference of this size between two entries is found in about 80 % of repetitions with other seeds, even
    if no other two of the table differ. (About: the t distribution stands for the noncentral one.) Pairs without any
    variation say nothing of it and do not count. None when no pair is left.
    """
    level = 1 - ALPHA / max(len(differences), 1) / 2
    known = np.array([(each.se, each.df) for each in differences if each.se])
    if not len(known):
        return None
    se, df = known.T
    return float(np.median((special.stdtrit(df, level) + special.stdtrit(df, POWER)) * se))


def average_ranks(means: Values) -> list[float]:
    """Mean rank of each entry over scenarios: the highest value of each has rank 1, equal ones the mean of their ranks.

    The rank is ``1 + higher + (equal - 1) / 2``, by how many are higher and how many equal, the entry itself among them.

    Args:
        means: float64 [scenarios, entries], without gaps.
    """
    if not len(means):
        return []
    values = np.round(means, ROUNDING)
    others, own = values[:, None, :], values[:, :, None]
    ranks = 1 + (others > own).sum(2) + ((others == own).sum(2) - 1) / 2
    average: list[float] = ranks.mean(0).tolist()
    return average


def aligned(entries: Mapping[str, ByScenario], seeds: Iterable[int] | None = None) -> dict[str, Values]:
    """Values of each entry as arrays [scenarios, seeds] that can be paired.

    Args:
        entries: by name. seeds: of the columns; None: those that there are.
    """
    rows = {scenario: n for n, scenario in enumerate(dict.fromkeys(chain.from_iterable(entries.values())))}
    there = chain.from_iterable(chain.from_iterable(own.values()) for own in entries.values())
    columns = {seed: n for n, seed in enumerate(sorted(set(there if seeds is None else seeds)))}
    out = {}
    for name, own in entries.items():
        flat = [math.nan] * (len(rows) * len(columns))
        for scenario, values in own.items():
            start = rows[scenario] * len(columns)
            for seed, value in values.items():
                flat[start + columns[seed]] = value
        out[name] = np.array(flat, np.float64).reshape(len(rows), len(columns))
    return out
