"""Which runs of a bundle are repeated, how many, and what that tells of the others.

Runs come in an order that only the verifier knows: all are equally likely to be early, whatever the bundle says of them.
They are repeated from the front for as long as the budget lasts by what the first of them took here, so the repeated ones are
a random sample, and what of it is not found can be computed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Container, Sequence
from fractions import Fraction
from math import comb, floor

from fedbench.submission.records import Row

FORGED = (1, 3, 10)
"""Numbers of forged runs of which it is told with which chance one of them would have been found."""


def chance(runs: int, repeated: int, forged: int) -> Fraction:
    """The chance that at least one of ``forged`` runs among ``runs`` is among ``repeated`` drawn without replacement.

    1 - C(runs - forged, repeated) / C(runs, repeated).
    """
    return 1 - Fraction(comb(runs - forged, repeated), comb(runs, repeated))


def told(runs: int, repeated: int) -> str:
    """The chances in words; rounded down, so that only what is certain is called 100 %."""
    if repeated == runs:
        return "all runs were repeated, so any forged run would have been found"
    parts = [f"{k} with {floor(1000 * chance(runs, repeated, k)) / 10:.1f} %" for k in FORGED if k <= runs]
    return f"of forged runs, the draw would have hit {', '.join(parts)}"


def drawn(rows: Sequence[Row], seed: int, first: Container[str] = ()) -> tuple[list[Row], int]:
    """The rows in the order in which they are repeated, and how many of them come in any case.

    Args:
        rows: of the bundle. seed: of the order. first: ids of runs that are repeated in any case, before the others.
    """
    ordered = sorted(rows, key=lambda row: str(row["run_id"]))
    sure = [row for row in ordered if row["run_id"] in first]
    rest = [row for row in ordered if row["run_id"] not in first]
    return [*sure, *random.Random(seed).sample(rest, len(rest))], len(sure)


def repeat_within(
    order: Sequence[Row],
    least: int,
    budget: float,
    jobs: int,
    repeat: Callable[[Sequence[Row]], bool],
    tell: Callable[[int, float], None],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Repeat rows from the front of ``order`` until the next ones would not fit in the budget; how many were.

    Args:
        order: the runs. least: so many are repeated whatever it takes; at least one is. budget: seconds. jobs: how many run
            at once. repeat: repeats some; false: no more are wanted. tell: is told, after the first ones, how many will be
            repeated, and how many seconds it takes.
        clock: seconds.
    """
    begin, done = clock(), 0
    while done < len(order):
        size = min(jobs, len(order))
        if done:
            spent = clock() - begin
            each = max(spent / done, 1e-9)
            fit = int(min(max(0, least - done, (budget - spent) / each), len(order) - done))
            if done == min(jobs, len(order)):
                tell(done + fit, (done + fit) * each)
            if fit < 1:
                break
            # Half of what fits: runs differ in length, and the next estimate knows more of them.
            size = min(fit, max(jobs, fit // 2))
        some = order[done : done + size]
        done += len(some)
        if not repeat(some):
            break
    return done
