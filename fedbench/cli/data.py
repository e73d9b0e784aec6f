"""``fedbench data``: which datasets there are, what they hold, and how to obtain them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbench.cli.data_shown import (
    LINKS,
    MOST_COUNTED,
    images_of,
    imported_record,
    overview_of,
    print_images,
    print_imported,
    print_info,
    split_record,
)
from fedbench.cli.output import console, print_json
from fedbench.errors import UserError

if TYPE_CHECKING:
    from fedbench.data.download import Progress

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
    from fedbench.data.splits import MADE

    known = {entry.name for entry in ENTRIES}
    others = [*DATASETS.names(), *imported_names()]
    entries = [*ENTRIES, *(resolve(name) for name in others if name not in known)]
    rows = [overview_of(entry) for entry in entries]
    if as_json:
        print_json(rows)
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("dataset", "users", "items", "interactions", "density", "published splits", "here"):
        table.add_column(heading, justify="right" if heading in _NUMERIC else "left", overflow="fold")
    for row in rows:
        sizes = [f"{row[key]:,}" for key in ("users", "items", "interactions")]
        density = f"{100 * row['density']:.3f} %" if row["density"] else ""
        here = ", ".join(sorted(set(row["here"].values()))) or "no"
        published = ", ".join(split for split in row["splits"] if split not in MADE)
        table.add_row(row["name"], *sizes, density, published, here)
    out = console()
    out.print(table)
    out.print(f"splits of all: {', '.join(MADE)}")


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
    overview = overview_of(entry)
    if split is not None:
        check_split(entry, split)
        wanted = [split]
    else:
        costly = entry.embedded and entry.interactions > MOST_COUNTED
        wanted = [] if costly else [known for known in entry.splits if known in overview["here"]]
    images = images_of(entry)
    splits = [load_split(entry.name, each, duplicates="keep" if keep else "drop") for each in wanted]
    if as_json:
        print_json({**overview, "images": images, "details": [split_record(each) for each in splits]})
        return
    print_info(entry, overview, splits, images)


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
        print_images(got.imported, as_json, {key: getattr(got, key) for key in LINKS})
        return
    if urls is not None or mapping is not None:
        raise UserError("--urls and --map belong to --images.")
    with _Bar(name) as progress:
        result = get(name, force=force, progress=progress)
    if as_json:
        print_json(imported_record(result))
        return
    print_imported(result)
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
        print_images(made, as_json)
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
        print_imported(read.made)
    if not dry_run:
        read.keep()
    if as_json:
        print_json({**imported_record(read.made), "written": not dry_run})
        return
    where = "nothing was written (--dry-run)" if dry_run else f"kept in {read.made.path}"
    console().print(f"  {where}", soft_wrap=True)
    if not dry_run:
        console().print(
            f"next: fedbench run --dataset {read.made.dataset} --model mf --attack pieck-uea,a-hum", soft_wrap=True
        )


_NUMERIC = {"users", "items", "interactions", "density"}


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
