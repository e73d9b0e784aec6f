"""Diagnostics of rounds: geometry by hand and against whole vectors, who dropped whom, and that looking changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from federations import small_federation
from robust_oracles import make_updates, server_of

import fedbench
from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.errors import ResultsError, UserError
from fedbench.federation.defense import Notes
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.runs.diagnostics import COLUMNS, METADATA, Diagnostics, discard, droppers, geometry, principal
from fedbench.scenarios.scenario import Scenario

NAN = math.nan


def uploads(vectors: list[list[float]], clients: list[int] | None = None) -> Updates:
    """Clients whose uploads are these vectors, one item for each coordinate (d = 1)."""
    values = torch.tensor(vectors, dtype=torch.float32)
    client, item = values.nonzero(as_tuple=True)
    ids = torch.tensor(clients if clients is not None else range(len(vectors)))
    rows = FullRows(client, item, values[client, item][:, None])
    return Updates(ids, (rows,), DenseGradients.of({}), torch.ones(len(vectors)))


def same(found: torch.Tensor, expected: list[float], tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=tolerance)


def test_cosines_by_hand() -> None:
    """Benign (1, 0), (3, 4), (0, 2); malicious (0, -5), (0, 0): cosines 3/5, 0, 4/5 among the benign; -0, -4/5, -1 across."""
    found = geometry(
        uploads([[1, 0], [3, 4], [0, 2], [0, -5], [0, 0]]), torch.tensor([False, False, False, True, True]), 2
    )
    same(found.norm, [1, 5, 2, 5, 0])
    same(found.cosine_benign, [0.3, 0.7, 0.4, -0.6, NAN])
    same(found.cosine_malicious, [0, -0.8, -1, NAN, NAN])


def test_principal_components_by_hand() -> None:
    """Mean (2, 1); centred (-2, -1), (2, -1), (-2, 1), (2, 1): variance 16 along the first axis, 4 along the second."""
    found = geometry(uploads([[0, 0], [4, 0], [0, 2], [4, 2]]), torch.zeros(4, dtype=torch.bool), 2)
    same(found.from_mean, [5**0.5] * 4)
    assert found.x.abs().tolist() == pytest.approx([2] * 4)
    assert found.y.abs().tolist() == pytest.approx([1] * 4)
    assert found.x[0] == pytest.approx(float(found.x[2]))
    assert found.x[0] == pytest.approx(-float(found.x[1]))
    assert found.y[0] == pytest.approx(float(found.y[1]))


def test_the_sign_of_a_component_is_fixed() -> None:
    found = geometry(uploads([[-9], [1], [2]]), torch.zeros(3, dtype=torch.bool), 1)
    same(found.x, [7, -3, -4])
    same(found.y, [0, 0, 0])


@pytest.mark.parametrize("vectors", [[[3.0, 4.0]], [[1.0, 2.0]] * 4, [[0.0, 0.0]] * 3])
def test_one_client_equal_uploads_and_nothing(vectors: list[list[float]]) -> None:
    n = len(vectors)
    found = geometry(uploads(vectors), torch.zeros(n, dtype=torch.bool), 2)
    same(found.x, [0] * n)
    same(found.y, [0] * n)
    same(found.from_mean, [0] * n)
    same(found.cosine_benign, [1.0 if n > 1 and any(vectors[0]) else NAN] * n)
    same(found.cosine_malicious, [NAN] * n)


@pytest.mark.parametrize("bad", [NAN, math.inf])
def test_what_is_not_finite_is_left_out_and_hides_nobody(bad: float) -> None:
    vectors = [[1.0, 0.0], [bad, 1.0], [1.0, 1.0]]
    found = geometry(uploads(vectors), torch.tensor([False, True, False]), 2)
    assert not math.isfinite(found.norm[1])
    same(found.cosine_benign, [0.5**0.5, NAN, 0.5**0.5])
    same(found.cosine_malicious, [NAN, NAN, NAN])
    same(found.from_mean, [0.5, NAN, 0.5])
    alone = geometry(uploads([[bad, 1.0]]), torch.tensor([False]), 2)
    assert alone.x.isnan().all()


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_geometry_is_that_of_whole_vectors(seed: int, common: bool) -> None:
    num_items, n = 12, 9
    updates = make_updates(n, num_items, 4, seed)
    g = torch.Generator().manual_seed(seed)
    if common:
        gradient = 30 * torch.randn(num_items, updates.all_rows().values.shape[1], generator=g)
        updates = replace(updates, common=Common(gradient, torch.tensor([1.0] * (n - 2) + [0.0, 0.5])))
    malicious = torch.rand(n, generator=g) < 0.4
    found = geometry(updates, malicious, num_items)

    rows = updates.explicit().all_rows()
    whole = torch.zeros(n, num_items, rows.values.shape[1], dtype=torch.float64)
    whole[rows.client, rows.item] = rows.values.double()
    vectors = np.concatenate(
        [whole.flatten(1).numpy(), *(v.flatten(1).double().numpy() for v in updates.dense.stacked().values())], axis=1
    )
    order = np.argsort(updates.clients.numpy())
    vectors, group = vectors[order], malicious.numpy()[order]
    for i in range(n):
        for wanted, values in ((False, found.cosine_benign), (True, found.cosine_malicious)):
            each = [
                vectors[i] @ vectors[k] / np.linalg.norm(vectors[i]) / np.linalg.norm(vectors[k])
                for k in range(n)
                if k != i and group[k] == wanted
            ]
            assert float(values[i]) == pytest.approx(np.mean(each) if each else NAN, abs=1e-5, nan_ok=True)
        assert float(found.norm[i]) == pytest.approx(np.linalg.norm(vectors[i]), rel=1e-4)
    centered = vectors - vectors.mean(0)
    u, s, _ = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(found.from_mean, np.linalg.norm(centered, axis=1), rtol=1e-3)
    for k, axis in enumerate((found.x, found.y)):
        np.testing.assert_allclose(np.abs(axis.numpy()), np.abs(u[:, k] * s[k]), atol=2e-3 * s[0])
        assert axis[axis.abs().argmax()] > 0


def test_components_of_few_clients() -> None:
    assert principal(torch.zeros(0, 0, dtype=torch.float64)).shape == (0, 2)
    assert principal(torch.zeros(1, 1, dtype=torch.float64)).tolist() == [[0, 0]]


def test_who_dropped_whom() -> None:
    """Of clients 2 to 6 the first filter drops 3, the second 3 (gone already) and names 5; the last names everybody left."""
    every = uploads([[1.0]] * 5, [6, 5, 4, 3, 2])
    first = every.keep(every.clients != 3)
    second = replace(first, rejected=first.clients == 5)
    nobody = replace(first, rejected=torch.ones(4, dtype=torch.bool))
    clients = torch.tensor([2, 3, 4, 5, 6])
    assert droppers(clients, [(every, first), (first, second)]).tolist() == [-1, 0, -1, 1, -1]
    assert droppers(clients, [(first, nobody)]).tolist() == [-1] * 5
    assert droppers(clients, [(every, every)]).tolist() == [-1] * 5


def federation(defense: str, every: int = 1, **options: Any) -> tuple[Any, Diagnostics]:
    parts = [DEFENSES.get(name)(DEFENSES.get(name).Params()) for name in defense.split("+")]
    attack = ATTACKS.get("explicit-boost")
    made = small_federation(
        attack=attack(attack.Params()),
        defense=parts[0] if len(parts) == 1 else Chain(parts),
        num_malicious=4,
        **options,
    )
    diagnostics = Diagnostics(every)
    diagnostics.watch(made)
    return made, diagnostics


@pytest.mark.parametrize("defense", ["none", "union", "union+norm-bound", "krum"])
def test_rows_of_a_federation(defense: str) -> None:
    made, diagnostics = federation(defense, every=2)
    for _ in range(3):
        made.train_epoch()
    table = diagnostics.table("r")
    assert table.column_names == list(COLUMNS)
    about = json.loads(table.schema.metadata[METADATA])
    assert about == {"version": 2, "run_id": "r", "every": 2, "filters": ["union"] if "union" in defense else []}
    rows = table.to_pylist()
    assert sorted({row["round"] for row in rows}) == list(range(0, made.round, 2))
    assert {(row["client"] >= 30) == row["malicious"] for row in rows} == {True}
    assert any(row["malicious"] for row in rows)
    assert all(row["epoch"] == row["round"] // 5 + 1 for row in rows)
    if "union" in defense:
        assert all(row["uniformity"] is not None for row in rows)
        assert {row["dropped_by"] for row in rows} == {None, "union"}
    else:
        assert {(row["uniformity"], row["dropped_by"]) for row in rows} == {(None, None)}


def test_the_kept_clients_are_those_not_dropped() -> None:
    made, diagnostics = federation("union")
    seen: list[tuple[set[int], set[int]]] = []
    look = diagnostics.look

    def spy(received: Updates, kept: Updates, server: Any) -> float:
        seen.append((set(received.clients.tolist()), set(kept.clients.tolist())))
        return look(received, kept, server)

    made.observer.look = spy
    made.train_epoch()
    rows = diagnostics.table("r").to_pylist()
    for number, (received, kept) in enumerate(seen):
        of = [row for row in rows if row["round"] == number]
        assert {row["client"] for row in of} == received
        assert {row["client"] for row in of if row["dropped_by"] is None} == kept


@pytest.mark.parametrize("rule", ["krum", "multi-krum", "bulyan", "dnc", "rfa", "foolsgold"])
def test_rules_over_whole_updates_note_whom_they_leave_out(rule: str) -> None:
    """Whoever is left out could have sent anything: the aggregate of the others, times n, is the rule's."""
    updates = make_updates(20, 6, 3, 0)
    cls, share = DEFENSES.get(rule), {} if rule in ("rfa", "foolsgold") else {"assumed_ratio": 0.2}
    defense = cls(cls.Params(scope="client", **share))
    view = replace(server_of(updates, 6, 3), notes=Notes())
    assert view.notes is not None
    total = defense.aggregate(updates, view)
    if rule in ("rfa", "foolsgold"):
        assert view.notes.left_out == []
        return
    [(name, out)] = view.notes.left_out
    f = 4
    assert (name, len(out)) == (rule, {"krum": 19, "multi-krum": f, "bulyan": 2 * f, "dnc": f}[rule])
    if rule != "bulyan":
        kept = updates.keep(~torch.isin(updates.clients, out))
        chosen = kept.sum_rows(6, 3) * 20 / len(kept.clients)
        assert torch.allclose(total.items, chosen, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_filter_and_rule_both_tell_whom_they_drop(order: str) -> None:
    """In parallel the rule judges everybody, so one client may be dropped by both; one after the other it may not."""
    union, rule = DEFENSES.get("union"), DEFENSES.get("multi-krum")
    attack = ATTACKS.get("explicit-boost")
    made = small_federation(
        attack=attack(attack.Params()),
        defense=Chain(
            [
                union(union.Params(order=order, assumed_ratio=0.2)),
                rule(rule.Params(scope="client", assumed_ratio=0.2)),
            ]
        ),
        num_malicious=4,
    )
    diagnostics = Diagnostics(1)
    diagnostics.watch(made)
    for _ in range(3):
        made.train_epoch()
    table = diagnostics.table("r")
    assert json.loads(table.schema.metadata[METADATA])["filters"] == ["union", "multi-krum"]
    rows = table.to_pylist()
    labels = {row["dropped_by"] for row in rows}
    assert {None, "union", "multi-krum"} <= labels
    assert ("union+multi-krum" in labels) == (order == "parallel")
    for number in range(made.round):
        of = [row["dropped_by"] or "" for row in rows if row["round"] == number]
        judged = len(of) if order == "parallel" else len(of) - sum("union" in each for each in of)
        assert sum("multi-krum" in each for each in of) == min(math.ceil(0.2 * judged - 1e-9), (judged - 1) // 2)


@pytest.mark.parametrize("defense", ["none", "union+norm-bound", "multi-krum"])
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_a_record_is_the_same_to_the_last_bit(defense: str, model: str) -> None:
    scenario = Scenario(
        "longtail-small",
        model,
        "pieck-uea",
        defense,
        malicious_ratio=0.05,
        protocol_params={"epochs": 3, "evaluate_every": 1},
    )
    plain = fedbench.run(scenario, 0).row()
    watched = fedbench.run(scenario, 0, on_start=Diagnostics(1).watch).row()
    measured = {key for key in plain if key.startswith("seconds_")} | {"started_at", "checksum"}
    assert {k: v for k, v in plain.items() if k not in measured} == {
        k: v for k, v in watched.items() if k not in measured
    }


def test_looking_is_no_part_of_the_seconds_of_training() -> None:
    made, _ = federation("none")
    made.observer.look = lambda received, kept, server: 1000.0
    made.train_epoch()
    assert made.seconds.train < 0


def test_unwatched_rounds_take_no_notes() -> None:
    made, _ = federation("union", every=3)
    views = []
    whole = made.defense.filter

    def spy(updates: Updates, server: Any) -> Updates:
        views.append(server.notes)
        return whole(updates, server)

    made.defense.filter = spy
    made.train_epoch()
    assert [isinstance(notes, Notes) for notes in views] == [True, False, False, True, False]


def test_the_file(tmp_path: Path) -> None:
    made, diagnostics = federation("none", every=100)
    empty = pq.read_table(diagnostics.write(tmp_path, "r"))
    assert (len(empty), empty.column_names) == (0, list(COLUMNS))
    made.train_epoch()
    path = diagnostics.write(tmp_path / "new", "r")
    assert path == tmp_path / "new" / "r.rounds.parquet"
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert pq.read_table(path).equals(diagnostics.table("r"))
    discard(path.parent, "r")
    discard(path.parent, "r")
    assert not path.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write the result"):
        diagnostics.write(tmp_path / "file", "r")


def test_every_must_be_positive() -> None:
    with pytest.raises(UserError, match="diagnose_every = 0"):
        Diagnostics(0)
