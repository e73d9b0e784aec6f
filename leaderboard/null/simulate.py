"""How often tables of equal entries tell some apart: ``python leaderboard/null/simulate.py`` writes ``README.md`` beside it.

The entries of a table are one method: each has seeds of its own, drawn from the real runs in ``runs.parquet``, and the tables
pair the first of one with the first of another, as they pair runs of equal seeds. So no entry is better than another, while
all that a seed draws (initial embeddings, cohorts, negatives) moves all scenarios of an entry, as it does in real tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from scipy import stats

from fedbench.leaderboard.doses import HALF, half_exposure, logarithms
from fedbench.leaderboard.paired import ALPHA, Values, contrast, holm, spread

HERE = Path(__file__).parent
TABLES, ENTRIES, SEEDS = 1000, 8, (2, 3, 5)
Key = tuple[str, str, str, float, str]
Test = Callable[[Sequence[Values]], float | None]


def by_scenarios(parts: Sequence[Values]) -> float | None:
    """The p of the former rule: every scenario a stratum of its own (Welch and Satterthwaite), as if no seed were shared."""
    estimate, variances, free, coins, flat = 0.0, [], [], 0, False
    for part in parts:
        count, n = part.shape
        means, squares = part.mean(1), part.var(1, ddof=1)
        estimate += float(means.mean())
        variances += list(squares / n / count**2)
        free += [n - 1] * count
        differs = np.abs(means) > 1e-9
        coins += int(differs.sum()) * (n - 1)
        flat |= bool((squares[differs] < 1e-18).any())
    v = np.array(variances)
    if v.sum() < 1e-18:
        return 2.0**-coins if abs(estimate) > 1e-9 else 1.0
    p = float(2 * stats.t.sf(abs(estimate) / math.sqrt(v.sum()), v.sum() ** 2 / (v**2 / np.array(free)).sum()))
    return max(p, 2.0**-coins) if flat else p


def by_seeds(parts: Sequence[Values]) -> float | None:
    """The p of the leaderboard's rule."""
    return contrast(parts).p


def pools() -> dict[str, list[Values]]:
    """Of each kind of table the parts of its score in percent, [scenarios, seeds] each: one of attacks, three of nets."""
    runs: dict[Key, dict[int, tuple[float, float]]] = {}
    for row in pq.read_table(HERE / "runs.parquet").to_pylist():
        key = (row["dataset"], row["attack"], row["target"], row["malicious_ratio"], row["defense"])
        runs.setdefault(key, {})[row["seed"]] = (100 * row["er_10"], 100 * row["hr_10"])
    seeds = sorted(set.intersection(*(set(own) for own in runs.values())))

    def values(
        metric: int, dataset: str, attack: str, targets: int = 1, ratios: int = 9, defense: str = "none"
    ) -> Values:
        names = [f"random:{n}" for n in range(targets)]
        keys = sorted(key for key in runs if key[:2] == (dataset, attack) and key[2] in names and key[4] == defense)
        return np.array([[runs[key][seed][metric] for seed in seeds] for key in keys[:ratios]])

    def doses(dataset: str, attack: str, target: int = 0, level: float = HALF) -> Values:
        """log10 of the dose of each seed at which ``level`` percent are reached, as in the tables of doses [1, seeds]."""
        keys = sorted(key for key in runs if key[:3] == (dataset, attack, f"random:{target}") and key[4] == "none")
        ratios = [key[3] for key in keys]
        found = {seed: half_exposure(ratios, [runs[key][seed][0] for key in keys], level) for seed in seeds}
        return np.array([[value for _, value in sorted(logarithms(found).items())]])

    small, real = "longtail-small", "ml-100k"
    four = [(small, "p1", "random:0", ratio) for ratio in (0.005, 0.01, 0.02, 0.05)]
    alone, under = (np.array([[runs[*key, d][seed] for seed in seeds] for key in four]) for d in ("none", "norm-bound"))
    clean = values(1, small, "none") - values(1, small, "none", defense="norm-bound")
    return {
        "p1, 1 scenario": [values(0, small, "p1", ratios=1)],
        "p1, 7 ratios": [values(0, small, "p1")],
        "p1, 7 ratios x 2 targets": [values(0, small, "p1", targets=2)],
        "p1, 4 ratios, ml-100k": [values(0, real, "p1")],
        "p1, both datasets, 11 scenarios": [np.concatenate([values(0, small, "p1"), values(0, real, "p1")])],
        "a-hum, 4 ratios, mostly near 0": [values(0, small, "a-hum")],
        "pieck-uea, 1 ratio, near 100": [values(0, small, "pieck-uea", ratios=1)],
        "pieck-uea, 4 ratios, 87 to 100": [values(0, small, "pieck-uea")],
        "dose of p1 for half of the users, mostly beyond": [doses(small, "p1")],
        "dose of a-hum for half, a third reached": [doses(small, "a-hum")],
        "dose of a-hum for 30 %": [doses(small, "a-hum", level=30)],
        "dose of p1 for 33 %, ml-100k": [doses(real, "p1", level=33)],
        "both, and p1 on two targets": [
            np.concatenate(
                [
                    doses(small, "a-hum", level=30),
                    *(doses(small, "p1", target, 33) for target in (0, 1)),
                    doses(real, "p1", level=33),
                ]
            )
        ],
        "norm-bound, net over 4 ratios": [alone[..., 0] - under[..., 0], -clean, -(alone[..., 1] - under[..., 1])],
    }


def drawn(pool: Sequence[Values], entries: int, seeds: int, rng: np.random.Generator) -> list[list[Values]]:
    """The parts of each entry's score, every entry with seeds of its own; of a net, the larger of the two costs counts."""
    order = rng.permutation(pool[0].shape[1])[: entries * seeds].reshape(entries, seeds)
    found = [[part[:, own] for part in pool] for own in order]
    return [own if len(own) == 1 else [own[0], min(own[1:], key=lambda cost: float(cost.mean()))] for own in found]


def difference(one: Sequence[Values], other: Sequence[Values]) -> list[Values]:
    """What is tested: parts of equal shape are paired."""
    out: list[Values] = []
    for a, b in zip(one, other, strict=True):
        out += [a - b] if a.shape == b.shape else [a, -b]
    return out


def errors(pool: Sequence[Values], entries: int, seeds: int, tables: int) -> list[int]:
    """In how many tables of ``entries`` each test, with Holm's correction over all pairs, tells any two apart."""
    rng, found = np.random.default_rng(seeds), [0] * len(TESTS)
    for _ in range(tables):
        pairs = [difference(*pair) for pair in combinations(drawn(pool, entries, seeds, rng), 2)]
        for n, test in enumerate(TESTS):
            ps = [test(parts) for parts in pairs]
            found[n] += min(holm([1.0 if p is None else p for p in ps])) <= ALPHA
    return found


def covered(pool: Sequence[Values], seeds: int) -> int:
    """In how many tables the interval of an entry covers the mean over all seeds."""
    rng, found = np.random.default_rng(seeds), 0
    truth = sum(float(part.mean()) for part in pool[:1])
    for _ in range(TABLES):
        (own,) = drawn(pool[:1], 1, seeds, rng)
        known = spread(own)
        assert known is not None
        found += abs(float(own[0].mean()) - truth) <= stats.t.ppf(0.975, known[1]) * known[0] + 1e-9
    return found


def share(count: int, of: int) -> str:
    """A rate in percent with its 95 % interval (Clopper and Pearson)."""
    between = stats.binomtest(count, of).proportion_ci()
    return f"{100 * count / of:.1f} [{100 * between.low:.1f}, {100 * between.high:.1f}]"


TESTS: tuple[Test, ...] = (by_scenarios, by_seeds)
TEXT = """# Tables without any difference

What the leaderboard's tests and intervals do where nothing is to be found, in tables made of real runs of equal entries:
{seeds} seeds of small federations (`runs.py` trains them again, `simulate.py` draws the tables and writes this file).
Stated are 5 % of errors and 95 % of coverage; in brackets the 95 % interval of each rate (Clopper and Pearson; of the draws,
since all tables are drawn from the same {seeds} seeds).

- two: {tables} tables of two entries; percent in which they are told apart.
- {entries}: {boards} tables of {entries}; percent in which any two are, with Holm's correction over the 28 pairs.
- before: each scenario a stratum of its own, as if no two shared a seed. now: the t test over the means of seeds.
- dose: the logarithm of the half-exposure dose; one beyond the doses that were run counts as the last of them.
- covered: how often the interval of an entry holds its mean over all {seeds} seeds. Of one that is nearly
  saturated it is too short: a few seeds often agree, and hide the rare one that falls short. The tests err less there.

| table | seeds | two, before | two, now | {entries}, before | {entries}, now | covered |
|---|---|---|---|---|---|---|
{rows}
"""


def main() -> None:
    """Write the tables."""
    found, few = pools(), TABLES // 4
    count = next(iter(found.values()))[0].shape[1]
    lines = []
    for name, pool in found.items():
        for seeds in SEEDS:
            two, many = errors(pool, 2, seeds, TABLES), errors(pool, ENTRIES, seeds, few)
            rates = [share(n, TABLES) for n in two] + [share(n, few) for n in many]
            lines.append(f"| {name} | {seeds} | {' | '.join(rates)} | {share(covered(pool, seeds), TABLES)} |")
    text = TEXT.format(tables=TABLES, boards=few, entries=ENTRIES, seeds=count, rows="\n".join(lines))
    (HERE / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
