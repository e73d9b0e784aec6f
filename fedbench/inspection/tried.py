"""What snapshots found, as a table: one row for each model, defense, moment, attack and bound."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fedbench.errors import DataError
from fedbench.runs.results import UNREADABLE, reason

HEADINGS = (
    "model",
    "defense",
    "epoch",
    "attack",
    "eps",
    "targets",
    "seeds",
    "ER@5 before",
    "ER@5",
    "least",
    "cosine",
    "similarity",
    "clean mean",
    "clean least",
    "AUC",
    "flagged",
)
CAPTION = (
    "Image attacks tried on one target at a time, at one moment of a training without attack and under the defense; ER@5"
    " in percent of users, mean over targets and seeds (before: with the original image; least: the lowest), measured at"
    " once, before any training on the new image. cold: the items with the fewest interactions, popular: with the most."
    " cosine: features of the original and the uploaded image. similarity: features of the uploaded image before and after"
    " the defense, cosine again; clean mean, clean least: the same of the catalogue's images. AUC: how well similarity tells"
    " the uploads of all targets, cold and popular, from clean images (below .5: they change less than clean images do)."
    " flagged: percent of the uploads that are less similar than half of the clean images all are, which changes nothing"
    " in ER@5. All four are empty where nothing is purified."
)


def read_tried(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows of snapshots; raises :class:`DataError` for a file that holds none."""
    return [row for path in paths for row in rows_of(path) if row["er_5"] is not None]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """All rows of a snapshot, those of tries without a result too; errors as of :func:`read_tried`."""
    try:
        if not path.is_file():
            raise ValueError("not a plain file" if path.exists() else "no such file")
        found = pq.read_table(path, partitioning=None, page_checksum_verification=True).to_pylist()
        return [{"defense_params": "{}", "er_5": row["er_5"], **row} for row in found]
    except UNREADABLE as error:
        raise DataError(f"{path}: not what `fedbench vision snapshot` writes ({reason(error)}).") from None


def table_of(rows: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Cells under :data:`HEADINGS`, in order of model, defense, epoch, attack, eps and group."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        params = json.loads(row["attack_params"])
        eps = params.pop("eps", None)
        given = json.loads(row["defense_params"])
        defense = row["defense"] + "".join(f" {name}={value}" for name, value in sorted(given.items()))
        attack = row["attack"] + "".join(f" {name}={value}" for name, value in sorted(params.items()))
        key = (row["model"], defense, row["epoch"], attack, eps, row["group"])
        groups.setdefault(key, []).append(row)
    return [_cells(key, groups[key]) for key in sorted(groups, key=str_of)]


def str_of(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key by which mixed columns can be sorted: undefended first, then by name, epoch and number."""
    model, defense, epoch, attack, eps, group = key
    return model, defense != "none", defense, epoch, attack, -1.0 if eps is None else float(eps), group


def _cells(key: tuple[Any, ...], found: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    model, defense, epoch, attack, eps, group = key

    def mean(name: str) -> float:
        return float(sum(row[name] for row in found) / len(found))

    seeds, items = {row["seed"] for row in found}, {row["item"] for row in found}
    purified = any(row["clean_similarity_min"] < 1 for row in found)
    aucs = [row["detection_auc"] for row in found if row.get("detection_auc") is not None]
    flagged = [row["flagged"] for row in found if row.get("flagged") is not None]
    return (
        model,
        defense,
        str(epoch),
        attack,
        "" if eps is None else f"{eps:g}",
        f"{len(items)} {group}",
        str(len(seeds)),
        f"{100 * mean('er_5_before'):.1f}",
        f"{100 * mean('er_5'):.1f}",
        f"{100 * min(row['er_5'] for row in found):.1f}",
        f"{mean('cosine'):.2f}",
        f"{mean('similarity'):.2f}" if purified else "",
        f"{mean('clean_similarity_mean'):.2f}" if purified else "",
        f"{min(row['clean_similarity_min'] for row in found):.2f}" if purified else "",
        f"{sum(aucs) / len(aucs):.2f}" if purified and aucs else "",
        f"{100 * sum(flagged) / len(flagged):.0f}" if purified and flagged else "",
    )


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The caption and the table."""
    lines = [CAPTION, "", "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(cells) + " |" for cells in table_of(rows)]
    return "\n".join(lines) + "\n"
