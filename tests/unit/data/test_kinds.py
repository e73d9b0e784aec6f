"""Files of every kind that people have, made here: each is imported with the right counts, or refused in one line."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import random
import tarfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedbench.data import Filters, Picks, import_dataset, load_split, read_import
from fedbench.data.importing import Imported
from fedbench.data.library import imported_slots, read_imported
from fedbench.errors import DataError, UserError

Row = tuple[int, int, int, int]
Files = dict[str, bytes | str]

# user, item, rating, time, in the order of no column: 9 users, 14 items, 84 pairs.
ROWS: list[Row] = [
    (u, i, u * i % 5 + 1, 1_300_000_000 + (37 * u * i + 11 * i) % 9973 * 3601)
    for u in range(1, 10)
    for i in range(1, 15)
    if (u * 7 + i * 5) % 3
]
random.Random(1).shuffle(ROWS)
COUNTS = (9, 14, 84)
HEADER = ("user_id", "item_id", "rating", "timestamp")
TYPED = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")


def table(
    rows: Sequence[Sequence[object]] = ROWS, sep: str = ",", header: Sequence[str] | None = HEADER, end: str = "\n"
) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=sep, lineterminator=end)
    writer.writerows([header, *rows] if header else rows)
    return out.getvalue()


def at(time: int, form: str) -> str:
    return datetime.fromtimestamp(time, UTC).strftime(form)


def dated(form: str) -> str:
    return table([(u, i, r, at(t, form)) for u, i, r, t in ROWS])


def lines(objects: Sequence[object], loose: bool = False) -> str:
    return "\n".join(repr(each) if loose else json.dumps(each) for each in objects)


AMAZON = [
    {
        "reviewerID": f"A{u}X",
        "asin": f"B000{i}",
        "reviewerName": 'J. "Q" O\'N',
        "helpful": [0, 1],
        "reviewText": "it's, a\ttest",
        "overall": float(r),
        "unixReviewTime": t,
        "reviewTime": at(t, "%m %d, %Y"),
    }
    for u, i, r, t in ROWS
]
AMAZON_2018 = [
    {key: value for key, value in review.items() if n % 3 or key not in ("reviewerName", "helpful")}
    | ({} if n % 3 else {"vote": "2", "image": ["x"], "style": {"Color:": "red"}})
    for n, review in enumerate(AMAZON)
]
AMAZON_2023 = [
    {
        "rating": float(r),
        "title": "t",
        "images": [],
        "asin": f"B{i}v{u % 2}",
        "parent_asin": f"B{i}",
        "user_id": f"AE{u}",
        "timestamp": t * 1000,
    }
    for u, i, r, t in ROWS
]
STEAM = [
    (1515000 + u, f'Game {i}, "The" Return', event, hours, 0)
    for u, i, r, _ in ROWS
    for event, hours in (("purchase", 1.0), ("play", 1.5 * r))
    if event == "purchase" or (u + i) % 2
]
STEAM_REVIEWS = [
    {"username": f"n{u}", "product_id": str(i), "hours": r * 1.1, "date": at(t, "%Y-%m-%d"), "text": "it's"}
    | ({"user_id": f"765{u}"} if (u + i) % 2 else {})
    for u, i, r, t in ROWS
]
OF_USER: dict[int, list[Row]] = {}
for each in ROWS:
    OF_USER.setdefault(each[0], []).append(each)
AUSTRALIAN = [
    {
        "user_id": f"7656119{u}",
        "user_url": "x",
        "reviews": [{"posted": at(t, "Posted %B %d, %Y."), "item_id": str(i), "review": "it's"} for _, i, _, t in rows],
    }
    for u, rows in OF_USER.items()
]
GAMES = [
    {
        "user_id": f"7656119{u}",
        "items_count": len(rows),
        "steam_id": "1",
        "items": [{"item_id": str(i), "item_name": "g", "playtime_forever": 60 * r} for _, i, r, _ in rows],
    }
    for u, rows in OF_USER.items()
]
YELP = [
    {"review_id": f"r{n}", "user_id": f"u{u}", "business_id": f"b{i}", "stars": float(r), "text": "a\nb", "date": day}
    for n, (u, i, r, day) in enumerate((u, i, r, at(t, "%Y-%m-%d %H:%M:%S")) for u, i, r, t in ROWS)
]


def uuid(item: int) -> str:
    return "" if item == 3 else f"{item:08x}-aaaa-bbbb-cccc-000000000000"


LASTFM_1K = "\n".join(
    f'user_{u:06d}\t{at(t, "%Y-%m-%dT%H:%M:%SZ")}\t{uuid(i)}\tArtist "{i}\t{uuid(i)}\tTrack {i}.{u % 2}'
    for u, i, _, t in ROWS
)
LASTFM_360K = "\n".join(f"{u:040x}\t{uuid(i)}\tartist {i}\t{100 * r}" for u, i, r, _ in ROWS)
LASTFM_2K = table([row[:3] for row in ROWS], "\t", ("userID", "artistID", "weight"))
GOWALLA = "\n".join(
    f"{u}\t{at(t, '%Y-%m-%dT%H:%M:%SZ')}\t30.1\t-97.2\t{i}" for u, i, _, t in sorted(ROWS, key=lambda row: -row[3])
)
BOOKS = '"User-ID";"ISBN";"Book-Rating"\r\n' + "\r\n".join(f'"{u}";"0{i}\xe9";"{r}"' for u, i, r, _ in ROWS)


def lists(rows: dict[int, list[Row]], user: str = "{}", item: str = "{}", sep: str = " ") -> str:
    return "\n".join(sep.join([user.format(u), *(item.format(row[1]) for row in of)]) for u, of in rows.items() if of)


def halves(user: str = "{}", item: str = "{}") -> Files:
    train = {u: rows[:-1] for u, rows in OF_USER.items()}
    test = {u: rows[-1:] for u, rows in OF_USER.items()}
    beside = "org_id remap_id\nx 0\n"
    return {
        "d/train.txt": lists(train, user, item),
        "d/test.txt": lists(test, user, item),
        "d/item_list.txt": beside,
        "d/user_list.txt": beside,
    }


ONE: dict[str, tuple[str, bytes | str]] = {
    "csv": ("r.csv", table()),
    "csv without a header": ("r.csv", table(header=None)),
    "tsv": ("r.tsv", table(sep="\t")),
    "tsv without a header": ("r.tsv", table(sep="\t", header=None)),
    "pairs": ("r.csv", table([row[:2] for row in ROWS], header=None)),
    "a blank after every comma": ("r.csv", table().replace(",", ", ")),
    "a separator at the end of rows": ("r.csv", table().replace("\n", ",\n").replace("timestamp,", "timestamp")),
    "names of rows, as R writes": (
        "r.txt",
        '"user" "item" "rating"\n' + "\n".join(f'"{n}" {u} {i} {r}' for n, (u, i, r, _) in enumerate(ROWS)),
    ),
    "Book-Crossing": ("BX.csv", BOOKS.encode("latin-1")),
    "escaped quotes": (
        "r.csv",
        '"User-ID";"ISBN";"Book-Rating"\r\n' + "\n".join(f'"{u}";"\\"0{i};x\\"";"{r}"' for u, i, r, _ in ROWS),
    ),
    "comments between rows": ("r.csv", f"# one\n{table(ROWS[:20])}# between, here\n{table(ROWS[20:], header=None)}"),
    "byte order mark and CRLF": ("r.csv", "\ufeff" + table(end="\r\n")),
    "blank lines": ("r.tsv", "\n\n" + table(sep="\t").replace("\n", "\n\n")),
    "utf-16 without a mark": ("r.tsv", table(sep="\t").encode("utf-16-le")),
    "line ends in quotes": (
        "r.csv",
        table(
            [(u, i, f'say "hi",\nline {i}', r, t) for u, i, r, t in ROWS],
            header=("userId", "movieId", "review", "rating", "timestamp"),
        ),
    ),
    "quotes in the midst of fields": ("r.tsv", "\n".join(f'u{u}\t"Weird {i}" Al\t{r}' for u, i, r, _ in ROWS)),
    "quotes at the start of fields": (
        "r.tsv",
        "\n".join(f"u{u}\t{chr(34) if i % 2 else ''}x{i}\t{r}" for u, i, r, _ in ROWS),
    ),
    "names of other words": ("r.csv", table(header=("buyer", "sku", "amount", "when"))),
    "names like the known ones": ("r.csv", table(header=("anon_user_id", "shop_product_id", "x", "added_date"))),
    "ids of 17 digits": ("r.csv", table([(76561198 * 10**9 + u, 10**16 + i, r, t) for u, i, r, t in ROWS])),
    "ids of text": ("r.csv", table([(f"user-{u}", f"\xe9t\xe9 {i}", r, t) for u, i, r, t in ROWS])),
    "times with a fraction": ("r.csv", table([(u, i, r, t + 0.25) for u, i, r, t in ROWS])),
    "times in thousandths": ("r.csv", table([(u, i, r, t * 1000) for u, i, r, t in ROWS])),
    "times with an exponent": ("r.csv", table([(u, i, r, f"{t:.9e}") for u, i, r, t in ROWS])),
    "dates with a zone": ("r.csv", dated("%Y-%m-%dT%H:%M:%S.123+02:00")),
    "dates with nanoseconds": ("r.csv", dated("%Y-%m-%dT%H:%M:%S.123456789Z")),
    "dates as spreadsheets write": ("r.csv", dated("%m/%d/%Y %H:%M")),
    "dates as in Germany": ("r.csv", dated("%d.%m.%Y %H:%M:%S")),
    "dates as Twitter writes": ("r.csv", dated("%a %b %d %H:%M:%S +0000 %Y")),
    "ratings left empty": ("r.csv", table([(u, i, "" if i % 4 else r, t) for u, i, r, t in ROWS])),
    "MovieLens, ::": ("ratings.dat", "\n".join(f"{u}::{i}::{r - 0.5}::{t}" for u, i, r, t in ROWS)),
    "Amazon 2014": ("Music.json", lines(AMAZON)),
    "Amazon 2014, loose": ("Music.json", lines(AMAZON, loose=True)),
    "Amazon 2018": ("Music_5.json", lines(AMAZON_2018)),
    "Amazon 2023": ("All_Beauty.jsonl", lines(AMAZON_2023)),
    "Amazon 2023, csv": (
        "All_Beauty.csv",
        table(
            [(f"AE{u}", f"B{i}", float(r), t) for u, i, r, t in ROWS], header=("user_id", "parent_asin", *HEADER[2:])
        ),
    ),
    "Amazon 2014, ratings": ("r.csv", table([(f"A{u}XYZ", f"B000{i}", r, t) for u, i, r, t in ROWS], header=None)),
    "Amazon 2018, ratings": ("r.csv", table([(f"B000{i:06d}", f"A{u}XYZ", r, t) for u, i, r, t in ROWS], header=None)),
    "Steam": ("steam-200k.csv", table(STEAM, header=None)),
    "Steam, reviews": (
        "steam_reviews.json",
        "\n".join(
            "{" + ", ".join(f"u{key!r}: {value!r}" for key, value in each.items()) + "}" for each in STEAM_REVIEWS
        ),
    ),
    "Steam, reviews of a user": ("australian_user_reviews.json", lines(AUSTRALIAN, loose=True)),
    "Steam, games of a user": ("australian_users_items.json", lines(GAMES, loose=True)),
    "Last.fm 2K": ("user_artists.dat", LASTFM_2K),
    "Last.fm 1K": ("userid-timestamp-artid-artname-traid-traname.tsv", LASTFM_1K),
    "Last.fm 360K": ("usersha1-artmbid-artname-plays.tsv", LASTFM_360K),
    "Yelp": ("yelp_academic_dataset_review.json", lines(YELP)),
    "Yelp in a list": ("reviews.json", json.dumps(YELP, indent=1)),
    "Gowalla": ("loc-gowalla_totalCheckins.txt", GOWALLA),
    "RecBole": ("x.inter", table(sep="\t", header=TYPED)),
    "RecBole, other names": ("x.inter", table(sep="\t", header=("who:token", "what:token", "label:float", "ts:token"))),
    "RecBole, time before rating": (
        "x.inter",
        table([(u, i, t, r) for u, i, r, t in ROWS], "\t", ("who:token", "what:token", "clock:float", "value:float")),
    ),
    "RecBole, dates as tokens": (
        "x.inter",
        table(
            [(i, u, at(t, "%Y-%m-%d %H:%M:%S"), "a b") for u, i, _, t in ROWS],
            "\t",
            ("track:token", "client:token", "when:token", "tags:token_seq"),
        ),
    ),
    "lists": ("x.txt", lists(OF_USER)),
    "lists of 17 digits": ("x.txt", lists(OF_USER, "7656119800000000{}", "1000000000000{}")),
    "lists of names": ("x.txt", lists(OF_USER, "u{}", "i{}")),
    "lists with tabs": ("x.txt", lists(OF_USER, sep="\t")),
    "lists with commas": ("x.txt", lists(OF_USER, sep=",")),
    "ratings with blanks between": ("x.txt", "\n".join(f"{u} {i} {r}" for u, i, r, _ in ROWS)),
    "a title above the header": ("r.csv", "My export, 2020-01-01\nrows: 84\n\n" + table()),
    "no names but letters": ("r.csv", table(header=("u", "i", "r", "t"))),
    "a date first": ("r.csv", table([(at(t, "%Y-%m-%d %H:%M"), u, i) for u, i, _, t in ROWS], header=None)),
    "u.data with commas": ("u.data", table(header=None)),
    "ratings.dat with tabs": ("ratings.dat", table(sep="\t", header=None)),
    "ratings.dat with a header": (
        "ratings.dat",
        "UserID::MovieID::Rating::Timestamp\n" + "\n".join("::".join(map(str, row)) for row in ROWS),
    ),
    "KONECT": ("out.x", "% bip weighted\n% 84 9 14\n" + "\n".join(" ".join(map(str, row)) for row in ROWS)),
    "Google Local": (
        "review.json",
        lines(
            [
                {
                    "user_id": str(10**20 + u),
                    "name": "x",
                    "time": t * 1000,
                    "rating": r,
                    "pics": None,
                    "gmap_id": f"0x{i}:1",
                }
                for u, i, r, t in ROWS
            ]
        ),
    ),
    "Goodreads": (
        "reviews.json",
        lines(
            [
                {"user_id": f"{u:x}", "book_id": str(i), "rating": r, "date_added": at(t, "%a %b %d %H:%M:%S -0700 %Y")}
                for u, i, r, t in ROWS
            ]
        ),
    ),
    "json in an object": (
        "x.json",
        json.dumps({"meta": {"n": 1}, "rows": [dict(zip(HEADER, row, strict=True)) for row in ROWS]}, indent=1),
    ),
    "json objects of several lines": ("x.json", "\n".join(json.dumps(each, indent=2) for each in YELP)),
    "json with values of several kinds": (
        "x.jsonl",
        "\ufeff"
        + lines([{"user": u if u % 2 else str(u), "item": i, "rating": None, "time": str(t)} for u, i, _, t in ROWS]),
    ),
    "lists with a comment and blanks at the end": (
        "x.txt",
        "# ours\n" + lists(OF_USER).replace("\n", " \n") + "\n77 \n",
    ),
    "lists with a heading": ("x.txt", "user items\n" + lists(OF_USER)),
    "gzip": ("r.csv.gz", gzip.compress(table().encode())),
    "bzip2": ("r.csv.bz2", bz2.compress(table().encode())),
    "xz": ("r.csv.xz", lzma.compress(table().encode())),
    "zstd": ("r.csv.zst", pa.compress(table().encode(), "zstd", asbytes=True)),
}


def counted(made: Imported) -> tuple[int, int, int]:
    return made.summary.users, made.summary.items, made.summary.interactions


def written(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder / next(iter(files)).partition("/")[0]


@pytest.mark.parametrize("kind", ONE)
def test_file_is_imported_with_the_right_counts(tmp_path: Path, kind: str) -> None:
    name, content = ONE[kind]
    made = import_dataset("mine", written(tmp_path, {name: content}))
    assert counted(made) == COUNTS
    kept = read_imported("mine", "interactions")
    assert kept is not None
    timeless = ("games", "2K", "360K", "Steam", "lists", "Book", "R writes", "quotes", "pairs", "blanks between")
    with_times = not any(word in kind for word in timeless) or kind in (
        "line ends in quotes",
        "Steam, reviews",
        "Steam, reviews of a user",
    )
    assert kept.ordered == with_times


@pytest.mark.parametrize(
    ("files", "counts"),
    [
        (halves(), COUNTS),
        (halves("u{}", "B00{}"), COUNTS),
        (halves("7656119800000000{}", "1000000000000{}"), COUNTS),
        ({"d/train.csv": table(ROWS[:60]), "d/test.csv": table(ROWS[60:])}, COUNTS),
        ({name: str(text).replace(" ", ",") for name, text in halves().items() if "list" not in name}, COUNTS),
        ({"d/train.txt": "1 5 3\n1 6 2\n2 5 1\n", "d/test.txt": "1 7 3\n2 6 4\n"}, (2, 3, 5)),
        ({"d/train.jsonl": lines(YELP[:60]), "d/test.jsonl": lines(YELP[60:])}, COUNTS),
        (
            {
                f"d/x.{part}.inter": table(rows, "\t", TYPED)
                for part, rows in (("train", ROWS[:60]), ("valid", ROWS[60:70]), ("test", ROWS[70:]))
            },
            COUNTS,
        ),
        ({"d/ml.train.rating": table(ROWS[:60], "\t", None), "d/ml.test.rating": table(ROWS[60:], "\t", None)}, COUNTS),
    ],
)
@pytest.mark.parametrize("how", ["folder", "files"])
def test_train_and_test_are_one_split(tmp_path: Path, files: Files, counts: tuple[int, int, int], how: str) -> None:
    folder = written(tmp_path, files)
    paths = [path for path in sorted(folder.iterdir()) if "list" not in path.name] if how == "files" else [folder]
    made = import_dataset("mine", *paths)
    assert (made.slot, made.format, counted(made)) == ("published", "split", counts)
    assert (made.summary.users_without_rows, made.summary.items_without_rows) == (0, 0)
    load_split("mine", "published")


BESIDE: dict[str, Files] = {
    "MovieLens": {
        "m/ratings.csv": table(),
        "m/movies.csv": "movieId,title\n1,A\n",
        "m/links.csv": "movieId,imdbId\n1,1\n",
    },
    "MovieLens 10M": {
        "m/ratings.dat": "\n".join("::".join(map(str, row)) for row in ROWS),
        "m/movies.dat": "1::A::B\n",
        "m/tags.dat": "1::2::x::1\n",
    },
    "Last.fm 2K": {
        "artists.dat": "id\tname\n1\ta\n",
        "user_artists.dat": LASTFM_2K,
        "user_friends.dat": "userID\tfriendID\n2\t3\n",
        "user_taggedartists.dat": "userID\tartistID\ttagID\n2\t52\t13\n",
    },
    "Last.fm 1K": {
        "l/userid-profile.tsv": "#id\tgender\nuser_000001\tm\n",
        "l/userid-timestamp-artid-artname-traid-traname.tsv": LASTFM_1K,
    },
    "Book-Crossing": {
        "BX-Book-Ratings.csv": BOOKS.encode("latin-1"),
        "BX-Books.csv": '"ISBN";"Book-Title"\n"1";"x"\n',
        "BX-Users.csv": '"User-ID";"Location"\n"1";"x"\n',
    },
    "Yelp": {
        "yelp_academic_dataset_review.json": lines(YELP),
        "yelp_academic_dataset_business.json": '{"business_id":"b1"}\n',
        "yelp_academic_dataset_tip.json": '{"user_id":"u1","business_id":"b1"}\n',
    },
    "Amazon": {"reviews_Music_5.json.gz": gzip.compress(lines(AMAZON).encode()), "meta_Music.json": "{'asin': 'B1'}\n"},
    "RecBole": {
        "x/x.inter": table(sep="\t", header=TYPED),
        "x/x.item": "item_id:token\n1\n",
        "x/x.user": "user_id:token\n",
    },
    "a name that says nothing": {"x/export.txt": table(), "x/README.md": "about"},
}


@pytest.mark.parametrize("kind", BESIDE)
@pytest.mark.parametrize("packing", ["zip", "mac", "windows", "tar.gz", "tar.xz", "folder", "link"])
def test_archive_or_folder_with_other_files_beside(tmp_path: Path, kind: str, packing: str) -> None:
    files = {name: text.encode() if isinstance(text, str) else text for name, text in BESIDE[kind].items()}
    path = tmp_path / f"a.{packing if packing.startswith('tar') else 'zip'}"
    if packing in ("folder", "link"):
        path = tmp_path / "folder"
        written(path, dict(files))
        if packing == "link":
            (tmp_path / "link").symlink_to(path, target_is_directory=True)
            path = tmp_path / "link"
    elif packing.startswith("tar"):
        with tarfile.open(path, "w:gz" if packing == "tar.gz" else "w:xz") as tar:
            for name, data in {**files, "._x": b"\0"}.items():
                info = tarfile.TarInfo(f"./{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    else:
        if packing == "mac":
            files |= {f"__MACOSX/{name.rpartition('/')[0]}._x.csv": b"\0\5" for name in files} | {".DS_Store": b"x"}
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                info = zipfile.ZipInfo("x")
                info.filename = name.replace("/", "\\") if packing == "windows" else name
                archive.writestr(info, data)
    assert counted(import_dataset("mine", path)) == COUNTS


def parquet(path: Path, rows: Sequence[Row] = ROWS, **columns: pa.Array) -> Path:
    plain = {
        "userId": pa.array([row[0] for row in rows]),
        "movieId": pa.array([row[1] for row in rows]),
        "rating": pa.array([float(row[2]) for row in rows]),
        "timestamp": pa.array([row[3] for row in rows]),
    }
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({**plain, **columns}), path)
    return path


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"userId": pa.array([float(row[0]) for row in ROWS])},
        {"movieId": pa.array([f"m{row[1]}" for row in ROWS]).dictionary_encode()},
        {"timestamp": pa.array([row[3] * 1000 for row in ROWS]).cast(pa.timestamp("ms", "UTC"))},
        {"timestamp": pa.array([at(row[3], "%Y-%m-%d %H:%M:%S") for row in ROWS])},
    ],
)
def test_parquet_in_its_types(tmp_path: Path, columns: dict[str, pa.Array]) -> None:
    plain = import_dataset("plain", parquet(tmp_path / "p.parquet"))
    made = import_dataset("mine", parquet(tmp_path / "f.parquet", **columns))
    assert counted(plain) == counted(made) == COUNTS
    splits = [load_split(name, "leave-one-out").fingerprint for name in ("plain", "mine")]
    assert splits[0] == splits[1]


def test_parquet_in_parts_and_what_it_lacks(tmp_path: Path) -> None:
    for n, rows in enumerate((ROWS[:50], ROWS[50:])):
        parquet(tmp_path / "parts" / f"part-{n}.parquet", rows)
    assert counted(import_dataset("mine", tmp_path / "parts")) == COUNTS
    holes = pa.array([None, *(row[0] for row in ROWS[1:])])
    with pytest.raises(DataError, match=r"row 1 has no user, item or time; fill it, or leave such out"):
        import_dataset("mine", parquet(tmp_path / "h.parquet", userId=holes))
    made = import_dataset("mine", tmp_path / "h.parquet", skip_malformed=True)
    assert (made.summary.rows, made.summary.malformed) == (83, 1)
    pq.write_table(pa.table({"a": [1], "b": [2]}), tmp_path / "n.parquet")
    with pytest.raises(DataError, match=r"the header names no column of users; it has: a, b\. Say which it is"):
        import_dataset("mine", tmp_path / "n.parquet")


@pytest.mark.parametrize(
    ("content", "picks"),
    [
        (table(header=("a", "b", "c", "d")), Picks("a", "b", "c", "d")),
        (table(header=("a", "b", "c", "d")), Picks("1", "2", "3", "4")),
        (table(header=None), Picks("1", "2")),
        (table([(t, "x", i, "y", u) for u, i, _, t in ROWS], header=None), Picks("5", "3", time="1")),
        (table([(t, "x", i, "y", u) for u, i, _, t in ROWS], header=None), Picks("5", "3")),
        (
            table([(i, u, r, t) for u, i, r, t in ROWS], header=("user_id", "item_id", "r", "t")),
            Picks("item_id", "user_id", time="t"),
        ),
        (lines([{"a": u, "b": i, "d": t} for u, i, _, t in ROWS]), Picks("a", "b", time="d")),
        ("\n".join(f"{i}::{u}::{r}::{t}" for u, i, r, t in ROWS), Picks("2", "1")),
    ],
)
def test_columns_by_name_or_number(tmp_path: Path, content: str, picks: Picks) -> None:
    (tmp_path / "f").write_text(content)
    assert counted(import_dataset("mine", tmp_path / "f", picks=picks)) == COUNTS
    kept = read_imported("mine", "interactions")
    assert kept is not None
    assert kept.ordered
    import_dataset("timeless", tmp_path / "f", picks=Picks(picks.user, picks.item, "none", "none"))
    kept = read_imported("timeless", "interactions")
    assert kept is not None
    assert not kept.ordered


@pytest.mark.parametrize(
    ("picks", "said"),
    [
        (Picks("usr"), r"no column 'usr' for --user; it has: user_id, item_id, rating, timestamp"),
        (Picks("5"), "no column '5' for --user"),
        (Picks("1", "1"), "--user and --item name the same column"),
    ],
)
def test_column_that_is_not_there(tmp_path: Path, picks: Picks, said: str) -> None:
    with pytest.raises(UserError, match=said):
        import_dataset("mine", written(tmp_path, {"r.csv": table()}), picks=picks)


def kept_by_hand(fewest: int) -> list[Row]:
    rows = ROWS
    while True:
        users, items = ([row[k] for row in rows] for k in (0, 1))
        left = [row for row in rows if users.count(row[0]) >= fewest and items.count(row[1]) >= fewest]
        if left == rows:
            return rows
        rows = left


def test_filters_keep_what_they_say_and_count_the_rest(tmp_path: Path) -> None:
    path = written(tmp_path, {"r.csv": table([*ROWS, (1, 99, 5, 1_300_000_000)])})
    made = import_dataset("mine", path, filters=Filters(min_rating=4))
    assert made.summary.rows == 1 + sum(row[2] >= 4 for row in ROWS)
    assert made.dropped[0].rows == sum(row[2] < 4 for row in ROWS)
    assert not any("are not read" in note for note in made.notes)
    made = import_dataset("mine", path, filters=Filters(k_core=5))
    core = kept_by_hand(5)
    assert counted(made) == (len({row[0] for row in core}), len({row[1] for row in core}), len(core))
    made = import_dataset("mine", path, filters=Filters(k_core=2, sample_users=4))
    assert made.summary.users == 4
    assert [gone.why for gone in made.dropped] == ["outside the 2-core", "not among the 4 of 9 users that were drawn"]
    assert import_dataset("mine", path, filters=Filters(sample_users=4)).summary.users == 4
    kept = read_imported("mine", "interactions")
    assert kept is not None
    assert kept.dropped[0].users == 5


@pytest.mark.parametrize(
    ("files", "filters", "said"),
    [
        ({"r.csv": table()}, Filters(k_core=30), r"the 30-core is empty; the largest that is not is --k-core 6"),
        ({"r.csv": table()}, Filters(min_rating=6), "no rating reaches 6; the highest is 5"),
        ({"x.txt": lists(OF_USER)}, Filters(min_rating=3), "--min-rating needs ratings, and none were found"),
        ({"r.csv": table()}, Filters(k_core=0), "--k-core must be 1 or more, not 0"),
        ({"r.csv": table()}, Filters(min_rating=float("nan")), "--min-rating must be a number"),
        (halves(), Filters(k_core=2), "would cut a split that is made already"),
    ],
)
def test_filter_that_cannot_be(tmp_path: Path, files: Files, filters: Filters, said: str) -> None:
    path = written(tmp_path, files)
    with pytest.raises(UserError, match=said):
        import_dataset("mine", path, filters=filters)
    with pytest.raises(UserError, match=r"give what is left of it a name of its own, such as ml-1m-small"):
        import_dataset("ml-1m", path, filters=Filters(k_core=2))


def test_playing_hours_are_the_ratings_of_steam(tmp_path: Path) -> None:
    path = written(tmp_path, {"steam-200k.csv": table(STEAM, header=None)})
    made = import_dataset("mine", path, filters=Filters(min_rating=1))
    assert made.summary.rows == sum(event == "play" for _, _, event, _, _ in STEAM)  # a purchase counts for no hour


def test_several_files_are_one_table_and_nothing_is_written_before_it_is_kept(home: Path, tmp_path: Path) -> None:
    written(tmp_path, {"a.csv": table(ROWS[:50]), "b.tsv": table(ROWS[50:], "\t")})
    read = read_import("mine", tmp_path / "a.csv", tmp_path / "b.tsv")
    assert counted(read.made) == COUNTS
    assert read.made.preview[0] == {"user": "8", "item": "7", "rating": "2", "time": "2011-06-10 20:42:29"}
    assert not (home / "datasets").exists()
    assert read.keep().path.is_file()
    with pytest.raises(DataError, match=r"a\.csv: neither train, valid nor test by name"):
        import_dataset("mine", written(tmp_path, {"train.txt": "1 2\n"}), tmp_path / "a.csv", layout="split")


def test_another_import_of_a_name_replaces_all_of_it(tmp_path: Path) -> None:
    import_dataset("mine", written(tmp_path, {"r.csv": table()}))
    import_dataset("mine", written(tmp_path, halves()))
    assert imported_slots("mine") == ["published"]


def test_a_pipe_is_read_as_a_file(tmp_path: Path) -> None:
    for name, data in {"plain": table().encode(), "packed": gzip.compress(table().encode())}.items():
        pipe = tmp_path / name
        os.mkfifo(pipe)
        writer = threading.Thread(target=pipe.write_bytes, args=(data,))
        writer.start()
        assert counted(import_dataset("mine", pipe)) == COUNTS
        writer.join()


def test_quotes_that_begin_far_below(tmp_path: Path) -> None:
    rows = [(u, i, "a, title" if u == 29 else "title", 5) for u in range(30) for i in range(10)]
    path = written(tmp_path, {"r.csv": table(rows, header=("user", "item", "title", "rating"))})
    assert counted(import_dataset("mine", path)) == (30, 10, 300)


def test_malformed_record_of_several_lines_is_named_and_counted(tmp_path: Path) -> None:
    rows: list[tuple[object, ...]] = [(u, "a\nb", i, t) for u, i, _, t in ROWS]
    text = table([*rows[:3], (1, "a\nb"), *rows[3:]], header=("user", "text", "item", "time"))
    path = written(tmp_path, {"r.csv": text})
    with pytest.raises(DataError, match=r"r\.csv:8: 2 fields separated by ',', expected 4; mend the line, or"):
        import_dataset("mine", path)
    made = import_dataset("mine", path, skip_malformed=True)
    assert (counted(made), made.summary.malformed) == (COUNTS, 1)


_SHARED = [Path(__file__).resolve().parents[4] / "shared"]
_SHARED += [Path(text).parent for text in os.environ.get("FEDBENCH_DATA", "").split(os.pathsep) if text]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_damaged_is_read_or_refused_in_one_line(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    whole = [(name, text.encode() if isinstance(text, str) else text) for name, text in ONE.values()]
    whole.append(("f.parquet", parquet(tmp_path / "f.parquet").read_bytes()))
    for name, content in whole:
        data = bytearray(content[: draw.choice([60, 400, len(content)])])
        for _ in range(draw.choice([1, 3, 20])):
            place = draw.randrange(len(data))
            marks = (b'"', b"\n", b"\r", b",", b"\t", b"::", b"#", b"{", b"[", b"nan", b"1e400", b"\xff", b"\0", b"-")
            data[place : place + draw.choice([0, 1, 9])] = draw.choice(marks)
        path = tmp_path / name
        path.write_bytes(bytes(data))
        said = ""
        try:
            read_import("mine", path, skip_malformed=draw.random() < 0.3)
        except UserError as error:
            said = str(error)
        assert "\n" not in said


CASES = next((path for each in _SHARED if (path := each / "cases" / "import").is_dir()), Path("no such folder"))
RIGHT = {
    **dict.fromkeys(("amz_loose.json", "amz_ratings_only.csv", "blank.tsv", "bom.tsv", "header.tsv"), (30, 40, 360)),
    **dict.fromkeys(
        ("lastfm_user_artists.dat", "mac.zip", "ratings.csv", "rb_tstoken.inter", "tabpairs"), (30, 40, 360)
    ),
    "fewitems.tsv": (40, 8, 120),
    "single.tsv": (60, 26, 60),
    "smallcohort.tsv": (5, 33, 40),
    "sparse": (20, 38, 120),
    "v1.tsv": (60, 80, 600),
    "v2.tsv": (200, 300, 5000),
}


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not at hand")
@pytest.mark.parametrize("name", RIGHT)
def test_cases_that_failed_once(name: str) -> None:
    assert counted(import_dataset("mine", CASES / name)) == RIGHT[name]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: written(at, {"r.csv": "user_id,item_id\n"}), "holds no interaction"),
        (lambda at: written(at, {"r.csv": b"\x80\x04\x95" + bytes(40)}), "no text but binary data"),
        (lambda at: written(at, {"r.csv.xz": lzma.compress(b"1,2\n")[:-9]}), "damaged xz file"),
        (lambda at: written(at, {"r.csv.bz2": bz2.compress(b"1,2\n")[:-9]}), "damaged bzip2 file"),
        (lambda at: written(at, {"d/a.csv": "1,2\n", "d/b.csv": "1,2\n"}), r"exactly one of .*found: a\.csv, b\.csv"),
        (lambda at: at / "nothing", "no such file or folder"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, make: Callable[[Path], Path], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        import_dataset("mine", make(tmp_path))
    assert "\n" not in str(caught.value)
