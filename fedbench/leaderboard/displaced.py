"""DR@K of the runs of attacks that demote, from whom they and their clean twins show the targets to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedbench.entries.cards import Goal
from fedbench.evaluation.displacement import displacement_ratio


def with_displacement(records: pa.Table, lengths: Sequence[int]) -> pa.Table:
    """The records without ``target_places``, which take room, and with what is made of them: ``dr_K`` for each length K.

    The columns are null but for runs of attacks that demote whose clean twin of the same seed ended well, where it shows a
    target to somebody; and where one of the two is of a schema that does not say so.
    """
    found: dict[int, list[float | None]] = {}
    demoting = pc.equal(records["attack_goal"], str(Goal.DEMOTE))
    if pc.any(demoting).as_py():
        twins = records.filter(pc.and_(pc.equal(records["attack"], "none"), pc.equal(records["status"], "ok")))
        known = {(row["scenario_id"], row["seed"]): row["target_places"] for row in _rows(twins, "scenario_id")}
        numbers = pc.indices_nonzero(demoting)
        for number, row in zip(numbers.to_pylist(), _rows(records.take(numbers), "clean_id"), strict=True):
            own, twin = row["target_places"], known.get((row["clean_id"], row["seed"]))
            found[number] = [displacement_ratio(twin, own, k) if twin and own else None for k in lengths]
    made = records.drop_columns("target_places")
    nothing = [None] * len(lengths)
    values = [found.get(number, nothing) for number in range(len(records))]
    for place, k in enumerate(lengths):
        made = made.append_column(f"dr_{k}", pa.array([each[place] for each in values], pa.float64()))
    return made


def _rows(records: pa.Table, scenario: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = records.select([scenario, "seed", "target_places"]).to_pylist()
    return rows
