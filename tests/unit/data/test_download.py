from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_server import Server

from fedbench.data.catalogue import Download
from fedbench.data.download import ATTEMPTS, download
from fedbench.errors import DataError

BODY = bytes(range(256)) * 4000
Serve = Callable[[bytes], Server]


def spec(server: Server, **changes: Any) -> Download:
    fields: dict[str, Any] = {
        "url": server.url,
        "filename": "data.bin",
        "layout": "lists",
        "size": len(BODY),
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "limit": 1 << 30,
    }
    return Download(**{**fields, **changes})


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_gets_its_name_when_it_is_whole(serve: Serve, tmp_path: Path) -> None:
    server, steps = serve(BODY), []
    path = download(spec(server), tmp_path / "new", progress=lambda done, wanted: steps.append((done, wanted)))
    assert path.read_bytes() == BODY
    assert left(path.parent) == ["data.bin"]
    assert steps[-1] == (len(BODY), len(BODY))
    assert steps == sorted(steps)


def test_file_that_is_there_is_not_fetched_again(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    download(spec(server), tmp_path)
    download(spec(server), tmp_path)
    assert len(server.seen) == 1


def test_file_that_is_there_but_wrong_is_replaced(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(b"damaged")
    assert download(spec(serve(BODY)), tmp_path).read_bytes() == BODY


def test_cut_transfer_continues_in_the_same_call(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    server.cuts = [300_000, 400_000]
    assert download(spec(server), tmp_path).read_bytes() == BODY
    assert [headers.get("Range") for headers in server.seen] == [None, "bytes=300000-", "bytes=700000-"]


def test_cut_transfer_continues_in_the_next_call(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    server.cuts = [1000] * ATTEMPTS
    with pytest.raises(DataError, match=r"broke off after 4,000 bytes .* run the command again"):
        download(spec(server), tmp_path)
    assert left(tmp_path) == ["data.bin.partial", "data.bin.partial.etag"]
    assert download(spec(server), tmp_path).read_bytes() == BODY
    assert server.seen[-1]["Range"] == "bytes=4000-"
    assert left(tmp_path) == ["data.bin"]


def test_server_without_ranges_starts_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    server.ranges = False
    server.cuts = [300_000]
    assert download(spec(server), tmp_path).read_bytes() == BODY


def test_complete_partial_file_needs_no_request(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    (tmp_path / "data.bin.partial").write_bytes(BODY)
    assert download(spec(server), tmp_path).read_bytes() == BODY
    assert server.seen == []


def test_partial_file_that_is_too_long_is_fetched_anew(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin.partial").write_bytes(BODY + b"x")
    assert download(spec(serve(BODY)), tmp_path).read_bytes() == BODY


def test_range_that_the_server_does_not_have_starts_over(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    (tmp_path / "data.bin.partial").write_bytes(BODY)
    (tmp_path / "data.bin.partial.etag").write_text('"v1"')
    with pytest.raises(DataError, match="no such part"):
        download(spec(server, size=None, sha256=None), tmp_path)
    assert download(spec(server, size=None, sha256=None), tmp_path).read_bytes() == BODY


def test_wrong_checksum_leaves_no_file(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"wrong checksum .* the file was removed"):
        download(spec(serve(BODY[:-1] + b"?")), tmp_path)
    assert left(tmp_path) == []


def test_wrong_size_leaves_no_file(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY + b"more")
    server.announce = False
    with pytest.raises(DataError, match=r"1,024,004 bytes instead of 1,024,000"):
        download(spec(server), tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("announce", [True, False])
def test_limit_holds_whether_or_not_the_size_is_announced(serve: Serve, tmp_path: Path, announce: bool) -> None:
    server = serve(BODY)
    server.announce = announce
    with pytest.raises(DataError, match="more than the 500,000"):
        download(spec(server, size=None, sha256=None, limit=500_000), tmp_path)
    assert left(tmp_path) == []


def test_unpinned_file_continues_only_if_it_did_not_change(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    server.cuts = [1000] * ATTEMPTS
    unpinned = spec(server, size=None, sha256=None)
    with pytest.raises(DataError, match="broke off"):
        download(unpinned, tmp_path)
    server.body, server.etag = BODY[::-1], '"v2"'
    assert download(unpinned, tmp_path).read_bytes() == BODY[::-1]
    assert server.seen[-1]["If-Range"] == '"v1"'


@pytest.mark.parametrize("tag", [None, 'W/"weak"'])
def test_unpinned_file_without_a_strong_tag_starts_over(serve: Serve, tmp_path: Path, tag: str | None) -> None:
    server = serve(BODY)
    server.etag = tag
    server.cuts = [300_000]
    unpinned = spec(server, size=None, sha256=None)
    assert download(unpinned, tmp_path).read_bytes() == BODY
    assert "Range" not in server.seen[-1]


def test_server_error_is_one_line(serve: Serve, tmp_path: Path) -> None:
    server = serve(BODY)
    server.status = 404
    with pytest.raises(DataError, match=r"the server answered 404 Not Found\.$"):
        download(spec(server), tmp_path)


def test_no_connection_is_one_line(serve: Serve, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
    with pytest.raises(DataError, match="no connection") as caught:
        download(spec(serve(BODY), url=url), tmp_path)
    assert "\n" not in str(caught.value)


def test_other_addresses_are_not_opened(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="only http and https"):
        download(spec(serve(BODY), url="file:///etc/hostname"), tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="needs a folder that is a file")
def test_folder_that_cannot_be_made(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        download(spec(serve(BODY)), tmp_path / "file" / "downloads")
