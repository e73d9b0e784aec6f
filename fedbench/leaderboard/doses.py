"""Dose and response of one attack: pure functions on what runs at several shares of malicious clients show.

A dose is a share of malicious clients, malicious clients / genuine users. Exposure is ER@K in percent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HALF = 50.0
"""Exposure at which half of the users are shown the target."""


@dataclass(frozen=True)
class Dose:
    """A dose, or a bound of one.

    Attributes:
        share: of malicious clients. bound: ``"<="``: the smallest dose that was run does it already; ``">"``: the largest
            does not; empty where it lies between two doses. Of means, see :func:`mean_bound`.
    """

    share: float
    bound: str = ""

    @property
    def order(self) -> float:
        """By which doses are ranked: what no dose reaches is beyond all."""
        return math.inf if self.bound == ">" else self.share

    def __str__(self) -> str:
        """In percent: ``0.28 %``, ``>10 %``, ``<=0.11 %``."""
        return f"{self.bound}{percent(self.share)} %"


def percent(share: float) -> str:
    """A share in percent, with two digits that count: ``0.28``, ``1.7``, ``10``."""
    value = 100 * share
    return f"{value:.0f}" if value >= 10 else f"{float(f'{value:.2g}'):g}"


def rising(doses: Sequence[float], exposures: Sequence[float]) -> NDArray[np.float64]:
    """The non-decreasing response that is nearest to ``exposures`` in the sum of squares (isotonic regression).

    Args:
        doses: rising. exposures: ER@K in percent at each. Returns: float64 [doses].
    """
    from scipy import optimize  # half a second with scipy.stats, for records of several doses alone

    if list(doses) != sorted(set(doses)):
        raise ValueError(f"doses {list(doses)} must rise.")
    return np.asarray(optimize.isotonic_regression(np.asarray(exposures, float)).x, float)


def half_exposure(doses: Sequence[float], exposures: Sequence[float], level: float = HALF) -> Dose:
    """The dose at which the response reaches ``level``: linear in the logarithm of the dose between two doses.

    ``log d = log a + (level - f(a)) / (f(b) - f(a)) (log b - log a)``, ``a`` and ``b`` being neighbours and ``f`` the
    isotonic response (:func:`rising`); the smallest dose that does, where it stands still at the level.

    Args:
        doses: shares above 0, rising. exposures: ER@K in percent. level: the exposure that is asked for.
    """
    response = rising(doses, exposures)
    if response[0] >= level:
        return Dose(doses[0], "<=")
    if response[-1] < level:
        return Dose(doses[-1], ">")
    above = int(np.argmax(response >= level))
    low, high = response[above - 1], response[above]
    part = (level - low) / (high - low)
    return Dose(math.exp(math.log(doses[above - 1]) + part * math.log(doses[above] / doses[above - 1])))


def response_at(doses: Sequence[float], exposures: Sequence[float], wanted: Sequence[float]) -> NDArray[np.float64]:
    """The isotonic response in percent at ``wanted``, linear in the logarithm of the dose; beyond the ends, theirs."""
    return np.asarray(np.interp(np.log(wanted), np.log(doses), rising(doses, exposures)))


@dataclass(frozen=True)
class DoseEstimate:
    """The median dose over seeds.

    Attributes:
        median: of the seeds; of an even number, the geometric mean of the middle two, or the higher one where that is a
            bound. low, high: the distribution-free interval of the median, None where the seeds are too few (fewer than
            five): the order statistics that :func:`scipy.stats.quantile_test` gives. confidence: its own, in percent: the
            least that is at least 93 (93.75 for the range of five seeds). seeds: how many.
    """

    median: Dose
    low: Dose | None
    high: Dose | None
    confidence: float | None
    seeds: int

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return str(self.median)
        if self.low.bound == self.high.bound == self.median.bound == ">":
            return str(self.median)
        ends = ", ".join(f"{dose.bound}{percent(dose.share)}" for dose in (self.low, self.high))
        return f"{self.median} [{ends}]"


CONFIDENCE = 0.93
"""Least confidence of the interval of a median: what the range of five seeds reaches (1 - 2 / 2^5 = 93.75 %)."""


def median_dose(doses: Sequence[Dose]) -> DoseEstimate:
    """The median over seeds. Bounds need no model: what is not reached is beyond every dose, and has the last ranks."""
    from scipy import stats

    ordered = sorted(doses, key=lambda dose: (dose.order, dose.bound != "<="))
    n = len(ordered)
    low, high = ordered[(n - 1) // 2], ordered[n // 2]
    middle = Dose(math.sqrt(low.share * high.share)) if not low.bound and not high.bound else high
    ranks = np.arange(1.0, n + 1)
    interval = stats.quantile_test(ranks, q=0, p=0.5).confidence_interval(CONFIDENCE)
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return DoseEstimate(middle, None, None, None, n)
    first, last = round(interval.low), round(interval.high)
    inside = stats.binom.cdf(last - 1, n, 0.5) - stats.binom.cdf(first - 1, n, 0.5)
    return DoseEstimate(middle, ordered[first - 1], ordered[last - 1], round(100 * float(inside), 2), n)


def mean_bound(doses: Iterable[Dose]) -> str:
    """What the mean of ``doses`` is, in which a bound counts as the dose that it names.

    Empty: the mean. ``<=``: at most so much, some being the smallest dose that was run; ``>=``: at least, some being beyond
    the largest; ``>``: all are; ``~``: some are this, some that, and nothing is known of it.
    """
    bounds = {dose.bound for dose in doses}
    if ">" in bounds:
        return ">" if len(bounds) == 1 else "~" if "<=" in bounds else ">="
    return "<=" if "<=" in bounds else ""


def logarithms(doses: Mapping[int, Dose]) -> dict[int, float]:
    """``log10`` of the dose of each seed, to compare seed by seed; a bound counts as the dose that it names.

    Where one of two attacks is beyond the doses, their difference counts with its least possible amount, where both are,
    with 0: entries are never told apart by more than was seen.
    """
    return {seed: math.log10(dose.share) for seed, dose in doses.items()}
