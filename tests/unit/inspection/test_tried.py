"""The table of what snapshots found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.errors import DataError
from fedbench.inspection.tried import HEADINGS, markdown, read_tried, table_of


def row(**change: Any) -> dict[str, Any]:
    values = {
        "model": "vncf", "defense": "none", "epoch": 8, "attack": "psmu-v", "attack_params": '{"eps": 4}', "group": "cold",
        "item": 3, "seed": 0, "er_5_before": 0.0, "er_5": 0.5, "cosine": 0.6, "similarity": 1.0,
        "clean_similarity_mean": 1.0, "clean_similarity_min": 1.0, "detection_auc": 0.5,
        "flagged": None,
    }  # fmt: skip
    return {**values, **change}


def test_means_over_targets_and_seeds_by_hand(tmp_path: Path) -> None:
    rows = [row(), row(item=4, er_5=1.0), row(seed=1, er_5=0.3, er_5_before=0.3), row(attack_params='{"eps": 16}')]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read_tried([tmp_path / "a.parquet"])
    four, sixteen = (dict(zip(HEADINGS, cells, strict=True)) for cells in table_of(found))
    assert (four["eps"], four["targets"], four["seeds"]) == ("4", "2 cold", "2")
    assert (four["ER@5 before"], four["ER@5"], four["least"]) == ("10.0", "60.0", "30.0")
    assert (four["similarity"], four["AUC"]) == ("", ""), "nothing is purified"
    assert sixteen["eps"] == "16"
    assert markdown(found).count("\n| vncf") == 2


def test_purifiers_with_other_parameters_have_rows_of_their_own() -> None:
    pure = {"defense": "gdmpd", "similarity": 0.7, "clean_similarity_mean": 0.9, "clean_similarity_min": 0.4}
    rows = [row(**pure, defense_params="{}"), row(**pure, defense_params='{"t_star": 45}'), row(defense_params="{}")]
    rows += [row(**pure, defense_params="{}", item=each, flagged=flagged) for each, flagged in ((4, 1.0), (5, 0.0))]
    cells = [dict(zip(HEADINGS, each, strict=True)) for each in table_of(rows)]
    assert [each["defense"] for each in cells] == ["none", "gdmpd", "gdmpd t_star=45"], "undefended first"
    assert [each["flagged"] for each in cells] == ["", "50", ""]
    assert (cells[1]["similarity"], cells[1]["clean least"], cells[1]["AUC"]) == ("0.70", "0.40", "0.50")


def test_another_file_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: not what `fedbench vision snapshot` writes"):
        read_tried([tmp_path / "a.parquet"])
