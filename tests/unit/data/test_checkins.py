from __future__ import annotations

import dataclasses
import gzip
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from data_server import Server

from fedbench.data import DatasetCard, Pairs, get, import_dataset, load_split, resolve
from fedbench.data.checkins import checkin_columns, id_list, listed_checkins, read_id_list
from fedbench.data.filters import Filters, core
from fedbench.data.library import read_imported
from fedbench.data.records import Table
from fedbench.errors import DataError

# Latest first, as in the original file. User 7 and location 99 are in no list; user 5 visits location 30 three times.
CHECKINS = """\
5\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t30
5\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t20
5\t2010-10-18T22:17:43Z\t30.2691029532\t-97.7493953705\t30
5\t2010-10-17T23:42:03Z\t30.2557309927\t-97.7633857727\t99
5\t2010-10-16T18:50:42Z\t30.2557309927\t-97.7633857727\t10
5\t2009-12-31T23:59:59Z\t\t\t30
7\t2010-10-12T15:57:20Z\t40.6438845363\t-73.7828063965\t30
2\t2010-10-12T15:57:20Z\t40.6438845363\t-73.7828063965\t10
"""
USERS, ITEMS = b"org_id remap_id\n2 0\n5 1\n11 2\n", b"org_id remap_id\n10 0\n30 2\n20 1\n"
BROKEN = [
    "5\t2010-10-16T18:50:42Z\t1\t2",
    "5\t2010-10-16 18:50:42\t1\t2\t10",
    "5\t\t1\t2\t10",
    "\t2010-10-16T18:50:42Z\t1\t2\t10",
]


def rows_of(table: Table) -> list[tuple[int, int]]:
    rows = table.parts["all"]
    return list(zip(rows.user.tolist(), rows.item.tolist(), strict=True))


def listed(pairs: Pairs | None) -> list[tuple[int, int]]:
    assert pairs is not None
    return list(zip(pairs.user.tolist(), pairs.item.tolist(), strict=True))


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.fixture
def gowalla(monkeypatch: pytest.MonkeyPatch) -> DatasetCard:
    """The catalogue's entry, its lists pinned to the small ones above."""
    known = resolve("gowalla")
    pinned = {
        kind: dataclasses.replace(known.id_lists[kind], size=len(text), sha256=hashlib.sha256(text).hexdigest())
        for kind, text in (("user", USERS), ("item", ITEMS))
    }
    small = dataclasses.replace(known, id_lists=pinned)
    monkeypatch.setattr("fedbench.data.importing.entry", lambda name: small if name == "gowalla" else None)
    return small


def test_check_ins_of_the_lists_keep_repeats_in_order_of_time() -> None:
    table = listed_checkins(CHECKINS.encode(), "c.txt", pa.array(["2", "5", "11"]), pa.array(["10", "20", "30"]))
    # Ties stay in the order of the file: 20 before 30. User 11 has no check-in and keeps its index.
    assert rows_of(table) == [(0, 0), (1, 2), (1, 0), (1, 1), (1, 2), (1, 2)]
    assert (table.num_users, table.num_items, table.ordered, table.malformed) == (3, 3, True, 0)
    assert table.notes == ("8 check-ins, 6 of them of the 3 listed users at the 3 listed locations",)


def test_nothing_of_the_lists_is_in_the_file() -> None:
    table = listed_checkins(CHECKINS.encode(), "c.txt", pa.array(["500"]), pa.array(["10"]))
    assert (rows_of(table), table.num_users, table.num_items) == ([], 1, 1)
    assert rows_of(listed_checkins(b"", "c.txt", pa.array(["2"]), pa.array(["10"]))) == []
    assert len(checkin_columns(b"", "c.txt")) == 0


@pytest.mark.parametrize("line", BROKEN)
def test_malformed_check_in_is_refused_or_counted(line: str) -> None:
    data = f"{CHECKINS}{line}\n{CHECKINS}".encode()
    users, items = pa.array(["2", "5"]), pa.array(["10", "20", "30"])
    with pytest.raises(DataError, match=r"^c\.txt:9: "):
        listed_checkins(data, "c.txt", users, items)
    table = listed_checkins(data, "c.txt", users, items, skip_malformed=True)
    assert (len(rows_of(table)), table.malformed) == (12, 1)


def test_import_takes_the_lists_beside_the_file(tmp_path: Path, gowalla: DatasetCard) -> None:
    path = write(tmp_path / "loc-gowalla_totalCheckins.txt.gz", gzip.compress(CHECKINS.encode()))
    write(tmp_path / "user_list.txt", USERS)
    write(tmp_path / "item_list.txt.gz", gzip.compress(ITEMS))
    made = import_dataset("gowalla", path)
    assert (made.slot, made.format, made.summary.rows, made.summary.interactions) == ("interactions", "gowalla", 6, 4)
    assert made.summary.users_without_rows == 1
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert any(digest in note and "upstream states none" in note for note in made.notes)
    assert any(note.startswith("differs from the catalogue: 3 users, 3 items, 4 interactions") for note in made.notes)

    kept = load_split("gowalla", "leave-one-out-validation", duplicates="keep")
    assert listed(kept.train) == [(0, 0), (1, 2), (1, 0), (1, 1)]
    assert (listed(kept.valid), listed(kept.test)) == ([(1, 2)], [(1, 2)])
    assert (kept.report.train_duplicates, kept.report.leaked) == (2, 2)
    assert "by time of the check-in" in kept.report.method
    first_visits = load_split("gowalla", "leave-one-out-validation")
    assert listed(first_visits.train) == [(0, 0), (1, 2)]
    assert (listed(first_visits.valid), listed(first_visits.test)) == ([(1, 0)], [(1, 1)])


def test_import_takes_the_lists_of_the_data_roots(
    tmp_path: Path, gowalla: DatasetCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "root" / "gowalla" / "user_list.txt.gz", gzip.compress(USERS))
    write(tmp_path / "root" / "gowalla" / "item_list.txt.gz", gzip.compress(ITEMS))
    monkeypatch.setenv("FEDBENCH_DATA", str(tmp_path / "root"))
    path = tmp_path / "there" / "checkins.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("loc-gowalla_totalCheckins.txt", CHECKINS)
    assert import_dataset("gowalla", path).summary.rows == 6
    plain = write(tmp_path / "there" / "checkins.txt", CHECKINS.encode())
    assert import_dataset("gowalla", plain, layout="gowalla").summary.rows == 6


def test_import_without_the_lists_says_what_is_missing(home: Path, tmp_path: Path, gowalla: DatasetCard) -> None:
    path = write(tmp_path / "checkins.txt", CHECKINS.encode())
    write(tmp_path / "gowalla" / "user_list.txt", USERS)
    with pytest.raises(
        DataError, match=r"needs item_list\.txt to select its items: put it \(https.*under another name"
    ):
        import_dataset("gowalla", path)
    write(tmp_path / "gowalla" / "item_list.txt", ITEMS + b"40 3\n")
    with pytest.raises(DataError, match=r"item_list\.txt: wrong checksum of the content"):
        import_dataset("gowalla", path)
    assert not (home / "datasets").exists()


def test_get_fetches_the_lists_and_the_check_ins(
    tmp_path: Path, home: Path, gowalla: DatasetCard, serve: Callable[[bytes], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gowalla.download is not None
    servers = [serve(body) for body in (gzip.compress(CHECKINS.encode()), USERS, ITEMS)]
    served = dataclasses.replace(
        gowalla,
        download=dataclasses.replace(gowalla.download, url=servers[0].url),
        id_lists={
            kind: dataclasses.replace(gowalla.id_lists[kind], url=server.url)
            for kind, server in zip(("user", "item"), servers[1:], strict=True)
        },
    )
    monkeypatch.setattr("fedbench.data.obtain.resolve", lambda name: served)
    made = get("gowalla")
    assert (made.dataset, made.summary.rows) == ("gowalla", 6)
    assert sorted(path.name for path in (home / "downloads" / "gowalla").iterdir()) == [
        "item_list.txt",
        "user_list.txt",
    ]
    get("gowalla", force=True)
    assert [len(server.seen) for server in servers] == [1, 1, 1]


def test_failed_download_of_a_list_names_all_files(
    gowalla: DatasetCard, serve: Callable[[bytes], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(USERS)
    server.status = 503
    lists = {kind: dataclasses.replace(spec, url=server.url) for kind, spec in gowalla.id_lists.items()}
    monkeypatch.setattr("fedbench.data.obtain.resolve", lambda name: dataclasses.replace(gowalla, id_lists=lists))
    with pytest.raises(
        DataError, match=r"503 .*bring loc-gowalla_totalCheckins\.txt\.gz, user_list\.txt, item_list\.txt"
    ):
        get("gowalla")


def test_id_list_is_in_the_order_of_its_numbers() -> None:
    assert read_id_list(ITEMS.replace(b"\n", b"\r\n"), "l.txt").to_pylist() == ["10", "20", "30"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"10 3\n", "must differ and be numbered 0 .. 3"),
        (b"40 2\n", "must differ and be numbered 0 .. 3"),
        (b"40 4\n", "must differ and be numbered 0 .. 3"),
        (b"40 x\n", "expected lines 'org_id remap_id'"),
        (b"40\n", r"l\.txt:5: 1 fields"),
    ],
)
def test_id_list_that_is_none(line: bytes, error: str) -> None:
    with pytest.raises(DataError, match=error):
        read_id_list(ITEMS + line, "l.txt")


def checkins(users: range, places: range, day: int = 1) -> list[str]:
    """Every user at every place, latest first, as in the original file."""
    return [f"{u}\t2010-10-{day:02d}T00:{p:02d}:00Z\t1.5\t-2.5\t{p}" for u in users for p in reversed(places)]


def test_check_ins_under_another_name_are_all_kept_or_cut_to_a_core(tmp_path: Path) -> None:
    # 10 users x 10 places are a 10-core. User 77 visits 10 places, of which one has no other visitor: it is removed,
    # and with it that place. Repeated check-ins of a later day stay.
    lines = checkins(range(10), range(10), day=2) + checkins(range(10), range(10))
    lines += [*checkins(range(77, 78), range(9)), "77\t2010-10-01T00:00:00Z\t0\t0\tlonely"]
    path = write(tmp_path / "c.txt", "\r\n".join(lines).encode())
    made = import_dataset("all-check-ins", path)
    assert (made.format, made.summary.rows, made.summary.interactions) == ("gowalla", 210, 110)
    made = import_dataset("my-check-ins", path, filters=Filters(k_core=10))
    assert (made.summary.users, made.summary.items, made.summary.rows, made.summary.interactions) == (10, 10, 200, 100)
    assert [(gone.why, gone.rows, gone.users, gone.items) for gone in made.dropped] == [
        ("outside the 10-core", 10, 1, 1)
    ]
    assert load_split("my-check-ins", "leave-one-out").report.train_duplicates == 100
    table = read_imported("my-check-ins", "interactions")
    assert table is not None
    assert table.ordered
    rows = table.parts["all"]
    assert rows.user.tolist() == [u for u in range(10) for _ in range(20)]
    # Indices are by first appearance in the file, which lists places 9 to 0; the order of time is 0 to 9, twice.
    assert rows.item[:20].tolist() == list(reversed(range(10))) * 2


def test_time_that_cannot_be_read_is_refused() -> None:
    lines = [*checkins(range(1), range(2)), "0\t2010-13-01T00:00:00Z\t0\t0\t5"]
    with pytest.raises(DataError, match=r"^c\.txt:3: time '2010-13-01T00:00:00Z' is not of the form"):
        checkin_columns("\n".join(lines).encode(), "c.txt")


def test_core_cascades_and_may_be_empty() -> None:
    # A chain: removing user 0 (one row) leaves item 0 with one row, which leaves user 1 with one row, and so on.
    user, item = np.array([0, 1, 1, 2, 2]), np.array([0, 0, 1, 1, 2])
    assert not core(user, item, 2).any()
    square = core(np.append(user, [5, 5, 6, 6]), np.append(item, [7, 8, 7, 8]), 2)
    assert square.tolist() == [False] * 5 + [True] * 4


def test_published_lists_are_those_that_the_catalogue_pins(real: Path) -> None:
    known = resolve("gowalla")
    users, items = (id_list(known, kind, ()) for kind in ("user", "item"))
    assert (len(users), len(items)) == (known.users, known.items) == (29_858, 40_981)
    assert (users[0].as_py(), items[40_980].as_py()) == ("343", "5391493")
    # The first line of the check-ins, which the code of Yu et al. skips: user 0 at location 22847. It is in the lists.
    line = b"0\t2010-10-19T23:55:27Z\t30.2359091167\t-97.7951395833\t22847\n"
    assert rows_of(listed_checkins(line, "c.txt", users, items)) == [(18_402, 13_154)]
    test = load_split("gowalla", "published").test
    assert bool(((test.user == 18_402) & (test.item == 13_154)).any())
