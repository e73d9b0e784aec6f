"""What ``fedbench data`` says of a dataset: its facts as plain values, and as tables and lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fedbench.cli.output import console, print_json
from fedbench.errors import DataError
from fedbench.texts import count

if TYPE_CHECKING:
    from fedbench.data import DatasetCard, Imported, ImportedImages, Split
    from fedbench.data.records import Dropped

MOST_COUNTED = 5_000_000
"""Embedded datasets above this size are counted only on request: they would be generated first."""

LINKS = {"addresses": "known", "fetched": "fetched now", "dead": "dead", "silent": "without an answer (run again)"}
"""What is counted of the addresses of images, and how it is called."""


def overview_of(entry: DatasetCard) -> dict[str, Any]:
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


def split_record(split: Split) -> dict[str, Any]:
    """Of a split, as plain values."""
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


def images_of(entry: DatasetCard) -> dict[str, Any] | None:
    """What there is to say of the images of a dataset's items; None where there are none."""
    from fedbench.data import has_pictures, picture_facts

    if not has_pictures(entry.name):
        return None
    if entry.embedded and entry.interactions > MOST_COUNTED:
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


def print_images(made: ImportedImages, as_json: bool, links: dict[str, int] | None = None) -> None:
    """What an import of images did; ``links``: how many addresses there were, by what became of them."""
    if as_json:
        print_json({"dataset": made.dataset, "path": str(made.path), "images": asdict(made.facts), **(links or {})})
        return
    out = console()
    out.print(f"{made.dataset}: images of {_images_line(asdict(made.facts))}")
    if links:
        out.print("  addresses: " + ", ".join(f"{count:,} {LINKS[key]}" for key, count in links.items()))
    for note in made.facts.notes:
        out.print(f"  note: {note}")
    out.print(f"  kept in {made.path}", soft_wrap=True)


def print_info(
    entry: DatasetCard, overview: dict[str, Any], splits: list[Split], images: dict[str, Any] | None
) -> None:
    """Facts of a dataset, of its images and its splits, as tables."""
    from rich.table import Table

    from fedbench.data.records import Dropped

    out = console()
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    facts.add_row(overview["name"], overview["title"])
    size = f"{overview['users']:,} users, {overview['items']:,} items, {overview['interactions']:,}"
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


def imported_record(result: Imported) -> dict[str, Any]:
    """What an import did, as plain values."""
    return {**asdict(result), "path": str(result.path), "density": result.summary.density}


def print_imported(result: Imported) -> None:
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
