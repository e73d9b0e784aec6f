"""``fedbench data get --images``: the images of a dataset's items, one by one from the addresses that a list names.

Links die. What was fetched stays in the data home, so that a second call fetches what is missing only; addresses that
answered that there is nothing (4xx) are remembered as dead and not asked again, those that did not answer are.
"""

from __future__ import annotations

import ast
import csv
import gzip
import hashlib
import http.client
import io
import json
import re
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fedbench.data.catalogue import DatasetCard
from fedbench.data.download import Progress, download
from fedbench.data.files import read_whole
from fedbench.data.home import cache_home, replacing
from fedbench.data.images import keep_images
from fedbench.data.load import load_item_ids
from fedbench.data.pictures_decode import DEFAULT_SIDE
from fedbench.data.pictures_files import LARGEST_FILE, Tally, read_map
from fedbench.data.pictures_import import ImportedImages, check_side, image_dataset, imported
from fedbench.data.pictures_store import images_path
from fedbench.data.splits import LEAVE_ONE_OUT
from fedbench.errors import DataError, UserError

WORKERS = 8
"""Images that are fetched at the same time."""

_GIVE_UP = 24
"""Addresses that do not answer, with none that does, before the call gives up."""

_DEAD = "dead.txt"
_ASIN = re.compile(rb"""['"]asin['"]: *['"]([^'"]+)['"]""")


@dataclass(frozen=True)
class FetchedImages:
    """What a call fetched and made."""

    imported: ImportedImages
    addresses: int
    """Items that have an address."""
    fetched: int
    """Images that this call fetched; the others were here."""
    dead: int
    """Addresses at which there is nothing any more."""
    silent: int
    """Addresses that did not answer this time; the next call asks them again."""


def get_images(
    name: str,
    *,
    urls: Path | None = None,
    mapping: Path | None = None,
    side: int = DEFAULT_SIDE,
    force: bool = False,
    progress: Progress | None = None,
    timeout: float = 30.0,
) -> FetchedImages:
    """Fetch the images of a dataset's items and keep them as an import does; images that cannot be used are left out.

    Args:
        name: a dataset whose interactions are here.
        urls: a CSV file with the columns item_id and image (an address); None: the list that the catalogue knows.
        mapping: lines 'item-id image-id', where the list calls the items by other ids.
        side: pixels of the square that each is stored as.
        force: fetch everything again, and ask dead addresses again.
        progress: told the number of addresses that are done and how many there are.
        timeout: seconds without an answer after which an address counts as silent.

    Raises:
        UserError: no such dataset, or no list of addresses.
        DataError: the list cannot be had or read, nothing answers, no image is there, or the interactions are not.
    """
    known = image_dataset(name)
    check_side(side)
    items = load_item_ids(known, LEAVE_ONE_OUT)
    names = {item: [item] for item in items}
    if mapping is not None:
        have = set(items)
        names = {image: [item for item in of if item in have] for image, of in read_map(mapping).items()}
    found = {image: url for image, url in _addresses(known, urls, names.keys()) if names.get(image)}
    if not found:
        raise DataError(f"{urls or known.name}: has the address of no item (items are such as {', '.join(items[:3])}).")
    folder = cache_home() / "downloads" / f"{known.name}-images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fetched, dead, silent = _fetch_all(list(found.values()), folder, force, progress, timeout)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror or error}).") from error
    wanted: dict[str, list[str]] = {}
    for image, url in found.items():
        wanted.setdefault(_stem(url), []).extend(names[image])
    if not any(folder.joinpath(f"{stem}.jpg").is_file() for stem in wanted):
        raise DataError(
            f"{urls or known.name}: no image could be had from {len(found):,} addresses, {dead:,} dead and {silent:,} "
            "without an answer; try again later, or import a folder or archive of images."
        )
    notes = [f"{len(found):,} addresses, {dead:,} of them dead, {silent:,} silent"]
    keep_images(
        images_path(known.name), folder, wanted, side, Tally(), skip_malformed=True, notes=notes, all_are_items=False
    )
    return FetchedImages(imported(known), len(found), fetched, dead, silent)


def _addresses(known: DatasetCard, urls: Path | None, wanted: Collection[str]) -> Iterator[tuple[str, str]]:
    """Image id and address, from the CSV file or the catalogue's list."""
    if urls is not None:
        yield from _csv_addresses(urls)
    elif known.image_index is not None:
        yield from amazon_addresses(download(known.image_index, cache_home() / "downloads"), set(wanted))
    else:
        raise UserError(
            f"Dataset {known.name!r} has no list of image addresses in the catalogue; name one with --urls FILE.csv "
            "(columns item_id, image), or import a folder or archive of images."
        )


def _csv_addresses(path: Path) -> Iterator[tuple[str, str]]:
    text = read_whole(path).decode("utf-8-sig", "replace")
    rows = csv.DictReader(io.StringIO(text))
    if not {"item_id", "image"} <= set(rows.fieldnames or ()):
        raise DataError(f"{path}:1: expected the columns item_id and image, found {', '.join(rows.fieldnames or ())}.")
    for row in rows:
        if row["item_id"] and row["image"]:
            yield row["item_id"].strip(), row["image"].strip()


def amazon_addresses(path: Path, wanted: set[str]) -> Iterator[tuple[str, str]]:
    """ASIN and address of the first image, from the metadata of Amazon products: one a line.

    Those of 2014 are Python literals with ``imUrl``; those of 2018 JSON with ``imageURLHighRes``, ``imageURL`` or
    ``image``, lists. Lines of other products are not parsed. The first line of a product counts.

    Raises:
        DataError: the file is damaged; a line about a wanted product cannot be read.
    """
    seen: set[str] = set()
    try:
        with gzip.open(path) as lines:
            for number, line in enumerate(lines, start=1):
                match = _ASIN.search(line)
                asin = match[1].decode("utf-8", "replace") if match else ""
                if asin not in wanted or asin in seen:
                    continue
                seen.add(asin)
                url = _image_of(line, f"{path}:{number}")
                if url:
                    yield asin, url
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: damaged gzip file ({error}); remove it and get it again.") from error


def _image_of(line: bytes, where: str) -> str:
    text = line.decode("utf-8", "replace")
    try:
        product = json.loads(text)
    except ValueError:
        try:
            product = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(f"{where}: neither JSON nor a Python literal.") from error
    if not isinstance(product, dict):
        raise DataError(f"{where}: no product, expected an object with asin and the address of an image.")
    for key in ("imUrl", "imageURLHighRes", "imageURL", "image"):
        value = product.get(key)
        if isinstance(value, list) and value:
            value = value[0]
        if isinstance(value, str) and value:
            return value
    return ""


def _stem(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def _fetch_all(
    urls: list[str], folder: Path, force: bool, progress: Progress | None, timeout: float
) -> tuple[int, int, int]:
    """Fetch what is not there: the numbers of images fetched, of dead and of silent addresses."""
    record = folder / _DEAD
    known_dead = set() if force or not record.is_file() else set(record.read_text().split())
    if force:
        record.unlink(missing_ok=True)
    different = list(dict.fromkeys(urls))
    missing = [
        url
        for url in different
        if _stem(url) not in known_dead and (force or not folder.joinpath(f"{_stem(url)}.jpg").is_file())
    ]
    done = len(different) - len(missing)
    dead = sum(_stem(url) in known_dead for url in different)
    fetched = silent = 0
    last = ""
    with ThreadPoolExecutor(WORKERS) as pool, record.open("a") as dead_ones:
        jobs = {pool.submit(_fetch, url, folder / f"{_stem(url)}.jpg", timeout): url for url in missing}
        try:
            for job in as_completed(jobs):
                problem = job.result()
                done += 1
                fetched += problem is None
                if isinstance(problem, _Dead):
                    dead += 1
                    dead_ones.write(f"{_stem(jobs[job])}\n")
                    dead_ones.flush()
                elif problem is not None:
                    silent += 1
                    last = f"{jobs[job]}: {problem}"
                if progress is not None:
                    progress(done, len(different))
                if silent >= _GIVE_UP and done == silent + len(different) - len(missing):
                    raise DataError(f"No connection: {silent} addresses did not answer and none did ({last}).")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return fetched, dead, silent


class _Dead(str):
    """Why an address is dead."""


def _fetch(url: str, path: Path, timeout: float) -> str | None:
    """Fetch one image; None, or why there is none: :class:`_Dead` where asking again would not help."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        return _Dead("not an http or https address")
    request = urllib.request.Request(url, headers={"User-Agent": "fedbench"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            data = response.read(LARGEST_FILE + 1)
            length = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        error.close()
        lasting = 400 <= error.code < 500 and error.code not in (408, 425, 429)
        return (_Dead if lasting else str)(f"the server answered {error.code}")
    except (ValueError, http.client.InvalidURL) as error:
        return _Dead(f"not an address ({error})")
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", None) or error or type(error).__name__)
    if len(data) > LARGEST_FILE:
        return _Dead(f"more than {LARGEST_FILE >> 20} MiB")
    if length and length.isdigit() and len(data) < int(length):
        return "the connection was cut"
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return None
