"""Dose-response curves of the records: what each attack exposes at every share of malicious clients, seed by seed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedbench.entries.cards import Goal
from fedbench.leaderboard.database import Database, Row
from fedbench.leaderboard.doses import Dose, half_exposure, response_at
from fedbench.leaderboard.ranking import Cell, cell_of, entry_names, grouped, load, unverified

PER_SEED = "per-seed"
"""Begins the policy by which every seed has targets of its own: the runs that dose-response is made of."""
PANEL = ("dataset", "model", "protocol", "split", "protocol_params", "model_params", "target", "num_targets")
"""What must be equal for the curves of attacks to be comparable."""

LEAST_DOSES = 3
"""Fewer are no curve."""
STATISTICS = ("tail", "end", "peak")
"""Exposure over the last quarter of training, which is the headline, at its end, and at its highest."""


@dataclass(frozen=True)
class Point:
    """One attack at one dose.

    Attributes:
        ratio: malicious clients / genuine users, as asked for. clients: how many that are. exposure: by statistic
            (:data:`STATISTICS`), ER@K in percent of each seed; 0 of a run that is broken. hr: HR@K in percent of each seed, 0
            of a run that diverged. runs: ids.
    """

    ratio: float
    clients: int
    exposure: Mapping[str, Mapping[int, float]]
    hr: Mapping[int, float]
    runs: Sequence[str]


@dataclass(frozen=True)
class Curve:
    """One attack under one defense on one panel.

    Attributes:
        panel: values of :data:`PANEL`. users: genuine ones. attack, defense: names on the leaderboard. knowledge: what the
            attack knows. points: by rising dose, each number of clients once. ladder: the numbers of clients that attacks
            of the panel ran with, without a defense, from the lowest to the highest that at least half of them have.
            rows: the runs.
    """

    panel: tuple[object, ...]
    users: int
    attack: str
    defense: str
    knowledge: str
    points: Sequence[Point]
    ladder: Sequence[int]
    rows: Sequence[Row]

    @functools.cached_property
    def seeds(self) -> list[int]:
        """The seeds that have both ends of the ladder: of others it cannot be said where the curve begins or ends."""
        if not self.points:
            return []
        by_clients = {point.clients: set(point.exposure["tail"]) for point in self.points}
        ends = [by_clients.get(clients, set()) for clients in (self.ladder[0], self.ladder[-1])]
        return sorted(ends[0] & ends[1])

    @functools.cached_property
    def doses(self) -> dict[int, Dose]:
        """The half-exposure dose of each of its seeds, by the tail."""
        return {seed: half_exposure(*self.response(seed)) for seed in self.seeds}

    def areas(self, statistic: str = "tail") -> dict[int, float]:
        """Mean ER@K in percent over the ladder (:meth:`filled`), of each of its seeds."""
        return {seed: float(np.mean(list(own.values()))) for seed, own in self.filled(statistic).items()}

    def filled(self, statistic: str = "tail") -> dict[int, dict[int, float]]:
        """By seed: clients -> ER@K in percent, at every dose of the ladder.

        Doses that were not run have what the isotonic response says between their neighbours. A dose between others is run on
        the seeds alone whose exposure jumps there: the mean of these would not be that of all.
        """
        out = {}
        asked = [clients / self.users for clients in self.ladder]
        for seed in self.seeds:
            doses, exposures = self.response(seed, statistic)
            ran = dict(zip(doses, exposures, strict=True))
            guessed = zip(self.ladder, asked, response_at(doses, exposures, asked), strict=True)
            out[seed] = {clients: ran.get(dose, float(guess)) for clients, dose, guess in guessed}
        return out

    def response(self, seed: int, statistic: str = "tail") -> tuple[list[float], list[float]]:
        """Doses and exposures of one seed: shares of clients, rising, and ER@K in percent, as they were measured."""
        there = [point for point in self.points if seed in point.exposure[statistic]]
        return [point.clients / self.users for point in there], [point.exposure[statistic][seed] for point in there]

    @property
    def runs(self) -> list[str]:
        """Ids of all its runs."""
        return [run for point in self.points for run in point.runs]

    @property
    def unverified(self) -> bool:
        """Whether its attack or defense does not come with fedbench and ran in process."""
        kinds = ("attack",) if self.defense == "none" else ("attack", "defense")
        return any(unverified(self.rows, kind) for kind in kinds)


def dose_curves(database: Database) -> list[Curve]:
    """The curves of all attacks that promote, without a defense first; those of runs with targets drawn per seed.

    A panel has curves when attacks without a defense ran with at least :data:`LEAST_DOSES` numbers of clients.
    """

    def make() -> list[Curve]:
        query = (
            f"select * from attacks where starts_with(target, '{PER_SEED}') and attack_goal = '{Goal.PROMOTE}'"
            " and status <> 'failed' order by run_id"
        )
        return list(_curves(load(database, query)))

    found: list[Curve] = database.kept("dose curves", make)
    return found


def without_doses(database: Database, rows: Iterable[Row]) -> list[Row]:
    """Those of ``rows`` that are no part of dose and response: the tables of fixed shares and targets are made of them."""
    panels = {curve.panel for curve in dose_curves(database)}
    return [row for row in rows if cell_of(row, PANEL) not in panels]


def _curves(rows: Sequence[Row]) -> Iterator[Curve]:
    attacks, defenses = entry_names(rows), entry_names(rows, "defense")
    rows = sorted(rows, key=lambda row: (row["defense"] != "none", row["run_id"]))
    for own in grouped(rows, lambda row: cell_of(row, PANEL)):
        ladder = common_ladder([row for row in own if row["defense"] == "none"])
        if len(ladder) < LEAST_DOSES:
            continue
        own = [row for row in own if ladder[0] <= row["num_malicious"] <= ladder[-1]]
        named = grouped(
            own,
            lambda row: (
                attacks[row["attack"], row["attack_params"]],
                defenses[row["defense"], row["defense_params"]],
            ),
        )
        for runs in named:
            first = runs[0]
            yield Curve(
                cell_of(first, PANEL),
                first["num_users"],
                attacks[first["attack"], first["attack_params"]],
                defenses[first["defense"], first["defense_params"]],
                first["knowledge"] or "none",
                list(_points(runs)),
                ladder,
                runs,
            )


def panel_names(panels: Sequence[Cell]) -> list[str]:
    """Dataset and model of each panel, values of :data:`PANEL`; with the protocol where these are not unique."""
    short = [f"{panel[0]} {panel[1]}" for panel in panels]
    return [
        name if short.count(name) == 1 else f"{name} {panel[2]} ({number})"
        for number, (name, panel) in enumerate(zip(short, panels, strict=True), 1)
    ]


def common_ladder(rows: Sequence[Row]) -> list[int]:
    """The numbers of clients that attacks ran with, from the lowest to the highest that at least half of the attacks have.

    What lies beyond would be a longer range for few: a curve is judged on the one that all have.
    """
    ran = {(row["num_malicious"], row["attack"], row["attack_params"]) for row in rows}
    attacks = len({each[1:] for each in ran})
    usual = [clients for clients, *_ in ran if 2 * sum(other[0] == clients for other in ran) >= attacks]
    return sorted({clients for clients, *_ in ran if min(usual) <= clients <= max(usual)}) if usual else []


def _points(rows: Iterable[Row]) -> Iterator[Point]:
    """By rising dose; of doses that come to as many clients, the largest, whose clients are nearest to it."""
    by_clients = grouped(
        sorted(rows, key=lambda row: (row["num_malicious"], row["malicious_ratio"])), lambda row: row["num_malicious"]
    )
    for same in by_clients:
        ratio = max(row["malicious_ratio"] for row in same)
        own = sorted((row for row in same if row["malicious_ratio"] == ratio), key=lambda row: row["seed"])
        exposure = {
            statistic: {row["seed"]: _exposure(row, column) for row in own}
            for statistic, column in zip(STATISTICS, ("er_tail", "er", "er_peak"), strict=True)
        }
        hr = {row["seed"]: 100 * (0.0 if row["status"] == "diverged" else row["hr"] or 0.0) for row in own}
        yield Point(ratio, own[0]["num_malicious"], exposure, hr, [row["run_id"] for row in own])


def _exposure(row: Row, column: str) -> float:
    """Percent; 0 of a run that is broken, or that has no score."""
    return 0.0 if row["broken"] or row[column] is None else 100 * row[column]
