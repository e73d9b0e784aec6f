"""``fedbench data`` with images of items: import, info, get; text, JSON, and mistakes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from data_server import Server
from typer.testing import CliRunner, Result

from fedbench.cli.data import data_app
from fedbench.errors import UserError

Image = pytest.importorskip("PIL.Image", reason="the extra vision is not installed")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "home"))
    monkeypatch.delenv("FEDBENCH_DATA", raising=False)
    return tmp_path / "home"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(data_app, [str(argument) for argument in arguments])


def text(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def answer(*arguments: str | Path) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def picture(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (30, 20), (colour, colour, colour)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of two of three items of the dataset "shop", which is imported."""
    table = tmp_path / "shop.inter"
    table.write_text("user_id:token\titem_id:token\nu\tA\nu\tB\nv\tA\nv\tC\n")
    assert run("import", "shop", table).exit_code == 0
    images = tmp_path / "pictures"
    images.mkdir()
    for name, colour in (("A", 1), ("B", 2), ("Z", 3)):
        images.joinpath(f"{name}.png").write_bytes(picture(colour))
    return images


def test_import_tells_what_the_images_are_of(folder: Path) -> None:
    said = text("import", "shop", folder, "--size", "16")
    assert "shop: images of 2 of 3 items (imported, pictures), with 75.00 % of the interactions; 16 x 16 px" in said
    assert "note: 1 image files are named by no item of the dataset (such as Z.png)" in said
    assert "images.parquet" in said


def test_info_has_a_row_of_images(folder: Path) -> None:
    assert "images none here" in text("info", "shop")
    assert answer("info", "shop")["images"] is None
    made = answer("import", "shop", folder)
    facts = answer("info", "shop")["images"]
    assert facts == made["images"]
    assert (facts["items_with_image"], facts["items"], facts["side"], facts["repeated"]) == (2, 3, 128, 0)
    assert facts["original_width"] == [30, 30, 30]
    assert len(facts["content"]) == 64
    said = text("info", "shop")
    assert "images 2 of 3 items (imported, pictures)" in said
    assert "from 30 x 20 px in the median (30 to 30 wide, 20 to 20 high)" in said
    assert f"no two alike; content {facts['content'][:16]}" in said


def test_info_of_embedded_data() -> None:
    assert "items (generated), with" in text("info", "longtail", "--split", "4:1")
    facts = answer("info", "longtail-huge")["images"]
    assert facts == {"origin": "generated", "problem": "generated when they are wanted"}


def test_info_without_what_the_images_are_of(folder: Path, home: Path) -> None:
    text("import", "shop", folder)
    home.joinpath("datasets", "ml-100k").mkdir()
    home.joinpath("datasets", "shop", "images.parquet").rename(home / "datasets" / "ml-100k" / "images.parquet")
    assert "its interactions are not in" in answer("info", "ml-100k")["images"]["problem"]


def test_bad_images_can_be_left_out(folder: Path) -> None:
    folder.joinpath("A.png").write_bytes(b"")
    refused = run("import", "shop", folder)
    assert refused.exit_code == 1
    assert "A.png: the file is empty" in str(refused.exception)
    assert answer("import", "shop", folder, "--skip-malformed")["images"]["items_with_image"] == 1


def test_a_map_and_a_size_are_of_images(folder: Path, tmp_path: Path) -> None:
    mapping = tmp_path / "map"
    mapping.write_text("C Z\n")
    assert answer("import", "shop", folder, "--map", mapping)["images"]["items_with_image"] == 1
    mistakes = [
        (("import", "shop", tmp_path / "shop.inter", "--format", "inter", "--size", "8"), "belong to images"),
        (("import", "shop", tmp_path / "shop.inter", "--format", "images"), "no archive of images"),
        (("import", "shop", folder, "--size", "7"), "must be 8 to 512 px, not 7"),
        (("get", "shop", "--urls", mapping), "belong to --images"),
        (("get", "shop", "--images"), "has no list of image addresses"),
    ]
    for arguments, said in mistakes:
        result = run(*arguments)
        assert isinstance(result.exception, UserError), arguments
        assert said in str(result.exception)


def test_get_counts_addresses(folder: Path, tmp_path: Path) -> None:
    server = Server(picture(9))
    try:
        urls = tmp_path / "urls.csv"
        urls.write_text(f"item_id,image\nA,{server.url}?1\nB,{server.url}?2\nC,file:///etc/passwd\n")
        said = text("get", "shop", "--images", "--urls", urls)
        assert "addresses: 3 known, 2 fetched now, 1 dead, 0 without an answer (run again)" in said
        got = answer("get", "shop", "--images", "--urls", urls)
        assert (got["fetched"], got["dead"], got["images"]["repeated"]) == (0, 1, 2)
    finally:
        server.close()
