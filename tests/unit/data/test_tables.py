"""One table of interactions in the forms in which people have it: every form gives the same split, or one line."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pytest

from fedbench.data import import_dataset, load_split
from fedbench.data.library import read_imported
from fedbench.errors import DataError

# user, item, rating, time; the file is not in the order of time.
ROWS = [(u, i, (u * i) % 5 + 1, 880_000_000 + (37 * u * i + 11 * i) % 97) for u in range(1, 7) for i in range(10, 18)]
DATES = [(u, i, r, f"2010-10-19 23:{(t - 880_000_000) // 60:02d}:{(t - 880_000_000) % 60:02d}") for u, i, r, t in ROWS]


def written(
    rows: Sequence[tuple[object, ...]], separator: str = ",", header: str = "", quoted: bool = False, end: str = "\n"
) -> str:
    out = io.StringIO()
    every: Literal[0, 1] = csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    csv.writer(out, delimiter=separator, quoting=every, lineterminator=end).writerows(rows)
    return (header + end if header else "") + out.getvalue()


def inter(time: str) -> str:
    return written(ROWS, "\t", f"user_id:token\titem_id:token\trating:float\ttimestamp:{time}")


def reviews(*, loose: bool = False) -> str:
    keys = ("reviewerID", "asin", "overall", "unixReviewTime")
    objects = [dict(zip(keys, (f"U{u}", f"I{i}", r, t), strict=True)) for u, i, r, t in ROWS]
    return "\n".join(repr(each) if loose else json.dumps(each) for each in objects)


PLAIN = written(ROWS, "\t")
SWAPPED = written([(i, t, u, r) for u, i, r, t in ROWS], header="movieId,timestamp,userId,rating")
FORMS = {
    "tabs": PLAIN,
    "csv": written(ROWS),
    "csv with a header": written(ROWS, header="userId,movieId,rating,timestamp"),
    "columns in another order": SWAPPED,
    "header of other words": written(ROWS, "\t", "user\titem\tstars\ttime"),
    "an index in front": written([(n, *row) for n, row in enumerate(ROWS)], header=",user_id,item_id,rating,ts"),
    "quoted semicolons": written(ROWS, ";", '"User-ID";"ISBN";"Book-Rating";"date"', quoted=True),
    "decimal commas": written([(u, i, f"{r},5", t) for u, i, r, t in ROWS], ";", "user;item;rating;timestamp").replace(
        '"', ""
    ),
    "a title with commas": written(
        [(u, "A film, with a comma", i, t) for u, i, _, t in ROWS], header="userId,title,itemId,timestamp"
    ),
    "as a spreadsheet saves it": "\ufeffsep=;\r\n" + written(ROWS, ";", "user_id;item_id;rating;timestamp", end="\r\n"),
    "old line ends": written(ROWS, header="user_id,item_id,rating,timestamp", end="\r"),
    "bars": written(ROWS, "|"),
    "blanks": written(ROWS, " ").replace(" ", "   ").replace("\n", " \n"),
    "comments": "% sym positive\n# 48 rows\n" + written(ROWS, " "),
    "header in a comment": "#user_id,item_id,rating,timestamp\n" + written(ROWS),
    "dates": written(DATES, header="user_id,item_id,rating,date"),
    "dates with a zone": written([(*row[:3], f"{row[3]}Z".replace(" ", "T")) for row in DATES]),
    "byte order mark": "\ufeff" + PLAIN,
    "blank lines": "\n  \n" + PLAIN.replace("\n", "\n\n"),
    "times as tokens": inter("token"),
    "times as numbers": inter("float"),
    "json": reviews(),
    "json in a list": "[" + ",\n".join(reviews().splitlines()) + "]",
    "loose json": reviews(loose=True),
    "time and rating swapped": written([(u, i, t, r) for u, i, r, t in ROWS]),
}


def fingerprint(path: Path) -> str:
    made = import_dataset("mine", path)
    assert (made.summary.users, made.summary.items, made.summary.interactions) == (6, 8, 48)
    return load_split("mine", "leave-one-out").fingerprint


@pytest.fixture
def expected(tmp_path: Path) -> str:
    (tmp_path / "u.data").write_text(PLAIN)
    return fingerprint(tmp_path / "u.data")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_split(tmp_path: Path, expected: str, form: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(FORMS[form].encode())
    assert fingerprint(path) == expected


def test_utf_16_as_excel_saves_unicode_text(tmp_path: Path, expected: str) -> None:
    (tmp_path / "f.txt").write_bytes(PLAIN.encode("utf-16"))
    assert fingerprint(tmp_path / "f.txt") == expected
    (tmp_path / "f.txt").write_bytes(PLAIN.encode("utf-16")[:-1])
    with pytest.raises(DataError, match="not UTF-16 text"):
        import_dataset("mine", tmp_path / "f.txt")


@pytest.mark.parametrize("inside", ["toy/toy.inter", "ml-latest-small/ratings.csv", "a/b/c.json"])
def test_archive_with_what_macos_and_others_put_beside(tmp_path: Path, expected: str, inside: str) -> None:
    content = {"inter": inter("float"), "csv": FORMS["csv with a header"], "json": reviews()}[inside.rpartition(".")[2]]
    folder, _, name = inside.rpartition("/")
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr(inside, content)
        archive.writestr(f"__MACOSX/{folder}/._{name}", b"\x00\x05\x16\x07")
        archive.writestr(f"{folder}/.DS_Store", b"x")
        archive.writestr(f"{folder}/README.txt", b"about")
        if name == "ratings.csv":
            archive.writestr(f"{folder}/movies.csv", b"movieId,title\n1,A\n")
    assert fingerprint(tmp_path / "f.zip") == expected


def test_amazon_lists_items_first_in_2018(tmp_path: Path) -> None:
    rows = [(f"B0000000{i}", f"A00000000{u}", r, t) for u, i, r, t in ROWS]
    (tmp_path / "Music.csv").write_text(written(rows))
    summary = import_dataset("mine", tmp_path / "Music.csv").summary
    assert (summary.users, summary.items) == (6, 8)


def test_play_counts_are_no_times(tmp_path: Path) -> None:
    for text in (
        written([row[:3] for row in ROWS], "\t", "userID\tartistID\tweight"),
        written([row[:3] for row in ROWS], "\t"),
    ):
        (tmp_path / "user_artists.dat").write_text(text)
        made = import_dataset("mine", tmp_path / "user_artists.dat")
        assert made.notes[-1] == "no times: the test item of each user is drawn at random by leave-one-out"
        assert any("are not read: every row counts as a like" in note for note in made.notes)
        table = read_imported("mine", "interactions")
        assert table is not None
        assert not table.ordered


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "1,2,3,4,5\n1,3,3,4,5\n",
            "5 columns and no header that tells what they are (1,2,3,4,5); say which: --user 1 --item 2",
        ),
        ("a,b,c,4\na,d,e,5\n", "4 columns and no header"),
        (
            "user,item,date\n1,2,long ago\n",
            "time 'long ago' of 'date' is neither a number nor like 2010-10-19 23:55:27; convert it, or import without",
        ),
        ("user,item,date\n1,2,03/04/2010\n", "time '03/04/2010' may have the day first or the month of 'date'"),
        (
            "user,thing\n1,2\n",
            "f:1: the header names no column of items; it has: user, thing. Say which it is: --item NAME",
        ),
        ("x,y\n1,2\n3,4\n", "f:1: the header names no column of users"),
        ("user_id,item_id,timestamp\n1,2,3\n1,3,nan\n" + "1,4,5\n" * 300, "f:3: timestamp 'nan' is not a number"),
        ("user_id,item_id,timestamp\n" + "1,4,5\n" * 300 + "1,3\n", "f:302: 2 fields separated by ','"),
        ("user_id;item_id\n" + '"1";"2"\n' * 300 + '"1";"2";"3"\n', "f:302: 3 fields separated by ';'"),
        (
            '{"user_id": 1, "thing": 2}',
            "f:1: no key of the review is called like one of items; it has: user_id, thing. Say which it is: --item",
        ),
        ("[1, 2", "not a JSON list of reviews"),
        ("PK\x03\x04rest", "a zip archive or a spreadsheet; save its table as CSV"),
        ("PAR1rest", "damaged parquet file"),
        ("Rar!rest", "a rar archive; unpack it"),
        ("a\x00b\n", "no text but binary data; save its table as CSV or parquet"),
        ("a\nb\n", "one column only"),
        ("", "empty, it holds no interaction"),
        ("\x00" * 257 + "ustar", "a tar archive inside another file; unpack it"),
        ("user_id,item_id\n", "holds no interaction"),
    ],
)
def test_what_cannot_be_told_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(DataError) as caught:
        import_dataset("mine", tmp_path / "f")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


SPLITS = {
    "lists": ("0 1 2 3\n1 0 2\n", "0 0\n1 3\n"),
    "pairs with blanks": ("0 1\n0 2\n0 3\n1 0\n1 2\n", "0 0\n1 3\n"),
    "pairs with tabs": ("0\t1\n0\t2\n0\t3\n1\t0\n1\t2\n", "0\t0\n1\t3\n"),
    "triples": ("0\t1\t5\n0\t2\t6\n0\t3\t7\n1\t0\t5\n1\t2\t6\n", "0\t0\t9\n1\t3\t9\n"),
    "ratings and times": ("0\t1\t5\t7\n0\t2\t6\t7\n0\t3\t7\t7\n1\t0\t5\t7\n1\t2\t6\t7\n", "0\t0\t9\t7\n1\t3\t9\t7\n"),
    "csv": ("0,1\n0,2\n0,3\n1,0\n1,2\n", "0,0\n1,3\n"),
    "a header": ("user\titem\n0\t1\n0\t2\n0\t3\n1\t0\n1\t2\n", "user\titem\n0\t0\n1\t3\n"),
    "sparse": ("7 70 900\n7 800000\n2000000000 3 900\n", "7 3\n2000000000 800000\n"),
}


@pytest.mark.parametrize("form", SPLITS)
def test_folders_of_train_and_test_in_all_forms(tmp_path: Path, form: str) -> None:
    ending = "csv" if form == "csv" else "txt"
    folder = tmp_path / "archive" / "inner"
    folder.mkdir(parents=True)
    for part, text in zip(("train", "test"), SPLITS[form], strict=True):
        (folder / f"{part}.{ending}").write_text(text)
        (folder / f"._{part}.{ending}").write_bytes(b"\x00\x05")
    summary = import_dataset("mine", tmp_path / "archive").summary
    assert (summary.users, summary.items, summary.rows, summary.items_without_rows) == (2, 4, 7, 0)
    split = load_split("mine", "published")
    assert (len(split.train), len(split.test), split.report.removed) == (5, 2, 0)
    if form == "sparse":
        assert [note for note in split.report.notes if "numbered anew" in note] == [
            "users are numbered anew, in their order: of the 2,000,000,001 indices up to the largest, 2 occur",
            "items are numbered anew, in their order: of the 800,001 indices up to the largest, 4 occur",
        ]


def test_an_import_under_the_same_name_is_other_data(tmp_path: Path) -> None:
    path = tmp_path / "u.data"
    path.write_text(PLAIN)
    before = fingerprint(path)
    path.write_text(written([(u, i, r, -t) for u, i, r, t in ROWS], "\t"))
    assert fingerprint(path) != before
