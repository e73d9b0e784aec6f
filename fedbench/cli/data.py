"""``fedbench data``: which datasets there are, what they hold, and how to obtain them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbench.cli.output import console, print_json
from fedbench.errors import DataError, UserError
from fedbench.texts import count

if TYPE_CHECKING:
    from fedbench.data import DatasetCard, Imported, ImportedImages, Split
    from fedbench.data.download import Progress
    from fedbench.data.records import Dropped

data_app = typer.Typer(
    help="List, inspect, download and import datasets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_KINDS = (
    ("CSV, TSV and the like, with a header", "the columns called user, item, rating and time, or much like it"),
    ("without a header", "user, item; user, item, rating or time; user, item, rating, time"),
    ("MovieLens", "ratings.csv, ratings.dat (::), u.data, or the zip"),
    ("Amazon 2014, 2018, 2023", "reviews in JSON (also Python's notation), CSV, or ratings only in either order"),
    ("Steam", "user, game, purchase or play, hours; reviews or games of users in JSON"),
    ("Last.fm", "user_artists.dat (artists and plays); 1K users (artist and time); 360K (artist and plays)"),
    ("Yelp", "reviews in JSON"),
    ("Gowalla, Brightkite", "check-ins of SNAP (all of them; --k-core 10 as papers do)"),
    ("RecBole", ".inter with any names: the first two tokens, where none is known"),
    ("NGCF, LightGCN", "lists 'user item item ...' with any ids, one file or train.txt and test.txt"),
    ("parquet", "one file or a folder of parts; columns by name"),
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@data_app.command("list", epilog="Example: fedbench data list --json")
def list_datasets(as_json: Json = False) -> None:
    """List the datasets of the catalogue and those you imported."""
    from fedbench.data import DATASETS, ENTRIES, resolve
    from fedbench.data.library import imported_names

    known = {entry.name for entry in ENTRIES}
    others = [*DATASETS.names(), *imported_names()]
    entries = [*ENTRIES, *(resolve(name) for name in others if name not in known)]
    rows = [_overview(entry) for entry in entries]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("dataset", "users", "items", "interactions", "density", "splits", "here"):
        table.add_column(heading, justify="right" if heading in _NUMERIC else "left", overflow="fold")
    for row in rows:
        sizes = [_count(row[key]) for key in ("users", "items", "interactions")]
        density = f"{100 * row['density']:.3f} %" if row["density"] else ""
        here = ", ".join(sorted(set(row["here"].values()))) or "no"
        table.add_row(row["name"], *sizes, density, ", ".join(row["splits"]), here)
    console().print(table)


@data_app.command(
    "info", epilog="Examples: fedbench data info amazon-music; fedbench data info ml-1m --split leave-one-out --json"
)
def info(
    name: Annotated[str, typer.Argument(help="A dataset, see `fedbench data list`.")],
    split: Annotated[str | None, typer.Option(help="Count this split only.")] = None,
    keep: Annotated[bool, typer.Option("--keep-duplicates", help="Count without removing anything.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a dataset is, its traps, and, where its data are here, what each split holds."""
    from fedbench.data import load_split, resolve
    from fedbench.data.load import check_split

    entry = resolve(name)
    overview = _overview(entry)
    if split is not None:
        check_split(entry, split)
        wanted = [split]
    else:
        costly = entry.embedded and entry.interactions > _MOST_COUNTED
        wanted = [] if costly else [known for known in entry.splits if known in overview["here"]]
    images = _images(entry)
    splits = [load_split(entry.name, each, duplicates="keep" if keep else "drop") for each in wanted]
    if as_json:
        print_json({**overview, "images": images, "details": [_split_record(each) for each in splits]})
        return
    _print_info(entry, overview, splits, images)


@data_app.command(
    "get",
    epilog=(
        "Examples: fedbench data get ml-100k; fedbench data get amazon-phones --images; "
        "fedbench data get ml-1m --images --urls ml1m_images.csv"
    ),
)
def get_dataset(
    name: Annotated[str, typer.Argument(help="A dataset of the catalogue.")],
    force: Annotated[bool, typer.Option("--force", help="Import again even if it is there.")] = False,
    images: Annotated[
        bool, typer.Option("--images", help="The images of the items, of a dataset whose interactions are here.")
    ] = False,
    urls: Annotated[
        Path | None, typer.Option(help="With --images: a CSV file with the columns item_id and image (an address).")
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option("--map", help="With --urls: lines 'item-id id-in-the-list', where they differ.")
    ] = None,
    size: Annotated[int, typer.Option(help="With --images: pixels of the square that each is stored as.")] = 128,
    as_json: Json = False,
) -> None:
    """Download a dataset from its pinned address, check it and keep it in the data home.

    An interrupted download continues when the command is run again. FEDBENCH_CACHE names the data home.
    """
    from fedbench.data import get, get_images

    if images:
        with _Bar(f"{name} images", counted=True) as progress:
            got = get_images(name, urls=urls, mapping=mapping, side=size, force=force, progress=progress)
        _print_images(got.imported, as_json, {key: getattr(got, key) for key in _LINKS})
        return
    if urls is not None or mapping is not None:
        raise UserError("--urls and --map belong to --images.")
    with _Bar(name) as progress:
        result = get(name, force=force, progress=progress)
    if as_json:
        print_json(_imported_record(result))
        return
    _print_imported(result)
    console().print(f"  kept in {result.path}", soft_wrap=True)


@data_app.command(
    "import",
    epilog="\n".join(
        [
            "\b",
            "Examples:",
            "  fedbench data import mine ratings.csv",
            "  fedbench data import mine log.tsv --user 2 --item 5 --time 1 --dry-run",
            "  fedbench data import books Books.jsonl.gz --min-rating 4 --k-core 10 --sample-users 5000",
            "  fedbench data import lgn train.txt test.txt",
            "  fedbench data import ml-1m ml-1m.zip",
            "  fedbench data import amazon-music AZ/ --split published-ijcai22",
            "  fedbench data import ml-1m posters.tar",
            "",
            "\b",
            "What is read (kind: columns taken):",
            *(f"  {kind}: {what}" for kind, what in _KINDS),
        ]
    ),
)
def import_(
    name: Annotated[str, typer.Argument(help="A dataset of the catalogue, or a new name.")],
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help=(
                "A file (plain, .gz, .bz2, .xz or .zst), a folder, or a zip or tar archive; or several files: train and"
                " test, or the parts of one table. Of images of the items: a folder, tar or zip."
            ),
        ),
    ],
    user: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="The users: a name, or a number from 1 on.")
    ] = None,
    item: Annotated[str | None, typer.Option(metavar="COLUMN", help="The items.")] = None,
    rating: Annotated[str | None, typer.Option(metavar="COLUMN", help="Ratings, plays or hours; or none.")] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="The times; or none.")] = None,
    min_rating: Annotated[float | None, typer.Option(help="Leave out what is rated lower.")] = None,
    k_core: Annotated[
        int | None,
        typer.Option(help="Leave out users and items with fewer than this many of each other, again and again."),
    ] = None,
    sample_users: Annotated[int | None, typer.Option(help="Then keep this many users, drawn at random.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be imported, and write nothing.")] = False,
    layout: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, split, ml-100k, ml-1m, json, gowalla, inter, triples, lists, table, parquet, or images.",
        ),
    ] = "auto",
    split: Annotated[str | None, typer.Option(help="Which published split train and test files are.")] = None,
    skip_malformed: Annotated[
        bool,
        typer.Option("--skip-malformed", help="Count malformed lines, or bad images, instead of refusing the file."),
    ] = False,
    mapping: Annotated[
        Path | None,
        typer.Option("--map", help="Of images: lines 'item-id image-id', where images are named otherwise."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="Of images: pixels of the square that each is stored as (128).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Import a dataset from files you have, or the images of its items (<item id>.jpg).

    What was taken for what, the first rows and the counts are shown before anything is written.
    """
    from fedbench.data import Filters, Picks, import_images, looks_like_images, read_import

    alone = paths[0] if len(paths) == 1 else None
    if layout == "images" or (layout == "auto" and (mapping or size or (alone and looks_like_images(alone)))):
        if alone is None:
            raise UserError("Images are imported from one folder or archive.")
        side = 128 if size is None else size
        made = import_images(name, alone, side=side, mapping=mapping, skip_malformed=skip_malformed)
        _print_images(made, as_json)
        return
    if mapping is not None or size is not None:
        raise UserError("--map and --size belong to images; say --format images.")
    read = read_import(
        name,
        *paths,
        layout=layout,
        split=split,
        skip_malformed=skip_malformed,
        picks=Picks(user, item, rating, time),
        filters=Filters(min_rating, k_core, sample_users),
    )
    if not as_json:
        _print_imported(read.made)
    if not dry_run:
        read.keep()
    if as_json:
        print_json({**_imported_record(read.made), "written": not dry_run})
        return
    where = "nothing was written (--dry-run)" if dry_run else f"kept in {read.made.path}"
    console().print(f"  {where}", soft_wrap=True)
    if not dry_run:
        console().print(
            f"next: fedbench run --dataset {read.made.dataset} --model mf --attack pieck-uea,a-hum", soft_wrap=True
        )


_LINKS = {"addresses": "known", "fetched": "fetched now", "dead": "dead", "silent": "without an answer (run again)"}
"""What is counted of the addresses of images, and how it is called."""
_NUMERIC = {"users", "items", "interactions", "density"}
_MOST_COUNTED = 5_000_000
"""Embedded datasets above this size are counted only on request: they would be generated first."""


def _overview(entry: DatasetCard) -> dict[str, Any]:
    """What the catalogue (or the imported table) says of a dataset, as plain values."""
    from fedbench.data.load import load_table, where
    from fedbench.data.splits import LEAVE_ONE_OUT
    from fedbench.data.summary import summarise

    here = {split: where(entry, split) for split in entry.splits}
    users, items, interactions, density = entry.users, entry.items, entry.interactions, entry.density
    if not interactions:
        summary = summarise(load_table(entry, LEAVE_ONE_OUT))
        users, items, interactions, density = summary.users, summary.items, summary.interactions, summary.density
    return {
        "name": entry.name,
        "aliases": list(entry.aliases),
        "title": entry.title,
        "users": users,
        "items": items,
        "interactions": interactions,
        "density": density,
        "timestamps": entry.timestamps,
        "splits": list(entry.splits),
        "here": {split: place for split, place in here.items() if place is not None},
        "source": entry.source,
        "download": entry.download.url if entry.download else None,
        "licence": entry.licence,
        "citation": entry.citation,
        "traps": list(entry.traps),
        "import": _import_record(entry),
    }


def _import_record(entry: DatasetCard) -> dict[str, Any] | None:
    """What an import said of itself, of a dataset that was imported; None of others."""
    from fedbench.data.library import imported_slots, read_imported

    slots = imported_slots(entry.name)
    tables = [table for slot in slots if (table := read_imported(entry.name, slot)) is not None]
    if not tables:
        return None
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    return {"notes": list(notes), "dropped": [asdict(each) for table in tables for each in table.dropped]}


def _split_record(split: Split) -> dict[str, Any]:
    return {
        "split": split.split,
        "users": split.num_users,
        "items": split.num_items,
        "train": len(split.train),
        "valid": None if split.valid is None else len(split.valid),
        "test": len(split.test),
        "public": {share: len(pairs) for share, pairs in split.public.items()},
        "fingerprint": split.fingerprint,
        "known_test": split.known_test,
        "report": asdict(split.report),
    }


def _images(entry: DatasetCard) -> dict[str, Any] | None:
    """What there is to say of the images of a dataset's items; None where there are none."""
    from fedbench.data import has_pictures, picture_facts

    if not has_pictures(entry.name):
        return None
    if entry.embedded and entry.interactions > _MOST_COUNTED:
        return {"origin": "generated", "problem": "generated when they are wanted"}
    try:
        facts = picture_facts(entry.name)
    except DataError as error:
        return {"problem": str(error)}
    return None if facts is None else asdict(facts)


def _images_line(facts: dict[str, Any]) -> str:
    if "problem" in facts:
        return str(facts["problem"])
    source = f", {facts['source']}" if facts["source"] else ""
    parts = [
        f"{facts['items_with_image']:,} of {facts['items']:,} items ({facts['origin']}{source}), with "
        f"{100 * facts['interactions_with_image']:.2f} % of the interactions",
        f"{facts['side']} x {facts['side']} px",
    ]
    if facts["original_width"]:
        (low, middle, high), (short, median, tall) = facts["original_width"], facts["original_height"]
        parts.append(f"from {middle} x {median} px in the median ({low} to {high} wide, {short} to {tall} high)")
    if facts["bytes_on_disk"]:
        parts.append(f"{facts['bytes_on_disk'] / 1e6:,.1f} MB")
    parts.append(f"{facts['repeated']:,} look like another" if facts["repeated"] else "no two alike")
    return f"{'; '.join(parts)}; content {facts['content'][:16]}"


def _print_images(made: ImportedImages, as_json: bool, links: dict[str, int] | None = None) -> None:
    if as_json:
        print_json({"dataset": made.dataset, "path": str(made.path), "images": asdict(made.facts), **(links or {})})
        return
    out = console()
    out.print(f"{made.dataset}: images of {_images_line(asdict(made.facts))}")
    if links:
        out.print("  addresses: " + ", ".join(f"{count:,} {_LINKS[key]}" for key, count in links.items()))
    for note in made.facts.notes:
        out.print(f"  note: {note}")
    out.print(f"  kept in {made.path}", soft_wrap=True)


def _print_info(
    entry: DatasetCard, overview: dict[str, Any], splits: list[Split], images: dict[str, Any] | None
) -> None:
    from rich.table import Table

    from fedbench.data.records import Dropped

    out = console()
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row(overview["name"], overview["title"])
    size = f"{_count(overview['users'])} users, {_count(overview['items'])} items, {_count(overview['interactions'])}"
    facts.add_row("size", f"{size} interactions, density {100 * overview['density']:.3f} %")
    for key in ("timestamps", "source", "download", "licence", "citation"):
        if overview[key]:
            facts.add_row(key, overview[key])
    places = ", ".join(f"{split} ({overview['here'].get(split, 'not here')})" for split in overview["splits"])
    facts.add_row("splits", places)
    facts.add_row("images", "none here" if images is None else _images_line(images))
    for note in (images or {}).get("notes", ()):
        facts.add_row("", note)
    for trap in overview["traps"]:
        facts.add_row("trap", trap)
    told = overview["import"] or {"notes": [], "dropped": []}
    for note in told["notes"]:
        facts.add_row("import", note)
    for gone in told["dropped"]:
        facts.add_row("dropped", _dropped_line(Dropped(**gone)))
    out.print(facts)
    for split in splits:
        out.print()
        out.print(_split_table(split, told["notes"]))
    if not overview["here"]:
        from fedbench.data.load import missing

        out.print()
        out.print(str(missing(entry, overview["splits"][-1])))


def _split_table(split: Split, told: Sequence[str] = ()) -> Any:
    """The counts of a split, and what there is to note that was not ``told`` before."""
    from rich.table import Table

    report = split.report
    done = "removed" if report.duplicates == "drop" else "kept"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    sizes = {"train": split.train, "valid": split.valid, "test": split.test}
    table.add_row("split", split.split, style="bold")
    table.add_row("made", report.method)
    table.add_row("pairs", ", ".join(f"{part} {len(pairs):,}" for part, pairs in sizes.items() if pairs is not None))
    table.add_row("repeated in train", f"{report.train_duplicates:,} ({done})")
    table.add_row("repeated in test", f"{report.heldout_duplicates:,} ({done})")
    table.add_row("test pairs in train", f"{report.leaked:,} ({done})")
    if known := split.known_test:
        table.add_row(
            "tested items known",
            f"{100 * known:.1f} %: HR@K is at most {100 * (1 - known):.1f} % where seen_held_out = missed",
        )
    table.add_row("users without test", f"{report.users_without_test:,}")
    table.add_row("items without train", f"{report.items_without_train:,}")
    if split.public:
        table.add_row("visible to attackers", ", ".join(f"{s}: {len(p):,}" for s, p in split.public.items()))
    if report.public_outside_train:
        table.add_row("visible, not in train", f"{report.public_outside_train:,} ({done})")
    if report.malformed:
        table.add_row("malformed lines", f"{report.malformed:,} (skipped)")
    for note in report.notes:
        if note not in told:
            table.add_row("note", note)
    table.add_row("fingerprint", split.fingerprint)
    return table


def _imported_record(result: Imported) -> dict[str, Any]:
    return {**asdict(result), "path": str(result.path), "density": result.summary.density}


def _print_imported(result: Imported) -> None:
    """The first rows as they were read, the counts, what was left out, and notes."""
    summary = result.summary
    out = console()
    if result.preview:
        from fedbench.cli.output import table

        columns = list(result.preview[0])
        out.print(table(columns, [[row[column] for column in columns] for row in result.preview]))
    out.print(
        f"{result.dataset}: {summary.users:,} users, {summary.items:,} items, {summary.interactions:,} interactions "
        f"({result.slot}, format {result.format})"
    )
    counts = {
        "repeated rows": summary.duplicates,
        "malformed lines skipped": summary.malformed,
        "users without interactions": summary.users_without_rows,
        "items without interactions": summary.items_without_rows,
    }
    for what, number in counts.items():
        if number:
            out.print(f"  {what}: {number:,}")
    for each in result.dropped:
        out.print(f"  dropped: {_dropped_line(each)}")
    for note in result.notes:
        out.print(f"  note: {note}")


def _dropped_line(gone: Dropped) -> str:
    also = [count(number, what) for number, what in ((gone.users, "user"), (gone.items, "item")) if number]
    return f"{count(gone.rows, 'row')} {gone.why}" + (f", with all of {' and '.join(also)}" if also else "")


def _count(number: int) -> str:
    return f"{number:,}"


class _Bar:
    """A progress bar on the error stream when that is a terminal, nothing otherwise."""

    def __init__(self, name: str, *, counted: bool = False) -> None:
        self._name = name
        self._counted = counted
        self._bar: Any = None

    def __enter__(self) -> Progress | None:
        if not sys.stderr.isatty():
            return None
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as RichProgress

        amount = (MofNCompleteColumn(),) if self._counted else (DownloadColumn(), TransferSpeedColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), *amount)
        self._bar = RichProgress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._bar.start()
        task = self._bar.add_task(self._name, total=None)
        return lambda done, wanted: self._bar.update(task, completed=done, total=wanted)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
