"""Computations in pieces: what is kept, found again, damaged, killed, and done without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedbench.vision.pieces import KEPT_FROM, in_pieces


def images(count: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 4, 4), dtype=torch.uint8, generator=drawn)


class Counted:
    """Mean of each image, and how many images were asked for."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(pixels))
        return pixels.float().mean((2, 3))


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path))
    return tmp_path


def kept(home: Path) -> list[Path]:
    return sorted(home.rglob("*.npy"))


def test_pieces_by_hand(home: Path) -> None:
    counted, seen = Counted(), list[tuple[int, int]]()
    pixels = images(20)
    result = in_pieces(pixels, "a", counted, piece=8, progress=lambda *now: seen.append(now))
    assert sorted(counted.calls) == [4, 8, 8]
    assert seen[-1] == (20, 20)
    assert len(kept(home)) == 3
    assert torch.equal(result, pixels.float().mean((2, 3)))
    again = Counted()
    assert torch.equal(in_pieces(pixels, "a", again, piece=8), result)
    assert again.calls == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 40), st.integers(1, 17), st.integers(0, 3))
def test_in_pieces_is_the_computation(count: int, piece: int, seed: int) -> None:
    pixels = images(count, seed)
    counted = Counted()
    for _ in range(2):
        assert torch.equal(in_pieces(pixels, "b", counted, piece=piece), pixels.float().mean((2, 3)))
    assert max(counted.calls, default=0) <= piece


def test_only_what_changed_is_computed_again() -> None:
    pixels = images(32)
    in_pieces(pixels, "a", Counted(), piece=8)
    pixels[9] += 1
    counted = Counted()
    in_pieces(pixels, "a", counted, piece=8)
    assert counted.calls == [8]
    in_pieces(pixels, "another", counted, piece=8)
    assert counted.calls == [8] * 5


def test_shape_and_type_count() -> None:
    pixels = torch.zeros(16, 3, 4, 4, dtype=torch.uint8)
    counted = Counted()
    in_pieces(pixels, "a", counted)
    in_pieces(pixels.reshape(16, 3, 2, 8), "a", counted)
    in_pieces(pixels[:, :, ::2, ::2].to(torch.int32), "a", counted)  # as many bytes
    assert len(counted.calls) == 3


def test_few_images_are_not_kept(home: Path) -> None:
    in_pieces(images(KEPT_FROM - 1), "a", Counted())
    assert kept(home) == []
    in_pieces(images(KEPT_FROM), "a", Counted())
    assert len(kept(home)) == 1


def test_what_is_not_to_be_kept_is_neither_looked_up_nor_kept(home: Path) -> None:
    pixels, counted = images(20), Counted()
    result = in_pieces(pixels, "a", counted, piece=8, keep=False)
    assert counted.calls == [8, 8, 4]
    assert kept(home) == []
    in_pieces(pixels, "a", Counted(), piece=8)
    assert torch.equal(in_pieces(pixels, "a", counted, piece=8, keep=False), result)
    assert counted.calls == [8, 8, 4] * 2


def test_whole_numbers_stay_so() -> None:
    pixels = images(16)
    for _ in range(2):
        result = in_pieces(pixels, "negative", lambda x: 255 - x)
        assert result.dtype == torch.uint8
        assert torch.equal(result, 255 - pixels)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_piece_is_computed_again(home: Path, damage: str) -> None:
    pixels = images(32)
    result = in_pieces(pixels, "a", Counted(), piece=16)
    first, _ = kept(home)
    content = first.read_bytes()
    flipped = bytearray(content)
    flipped[-3] ^= 1
    first.write_bytes({"cut": content[:-5], "flipped": bytes(flipped), "empty": b"", "other": b"x" * 500}[damage])
    counted = Counted()
    assert torch.equal(in_pieces(pixels, "a", counted, piece=16), result)
    assert counted.calls == [16]
    assert first.read_bytes() == content


def test_a_folder_that_cannot_be_written_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEDBENCH_CACHE", str(tmp_path / "file" / "below"))
    counted = Counted()
    pixels = images(20)
    assert torch.equal(in_pieces(pixels, "a", counted), pixels.float().mean((2, 3)))
    assert counted.calls == [20]


def test_two_that_need_the_same_share_the_work(home: Path) -> None:
    """While one is at it, another finishes: what that left is taken, not computed."""
    pixels = images(64)
    other = Counted()
    counted = Counted()

    def compute(part: torch.Tensor) -> torch.Tensor:
        in_pieces(pixels, "a", other, piece=8)
        return counted(part)

    in_pieces(pixels, "a", compute, piece=8)
    assert sum(counted.calls) == 8
    assert sum(other.calls) == 64


PROGRAM = """
import time, torch
from fedbench.vision.pieces import in_pieces
def compute(pixels):
    print("at it", flush=True)
    time.sleep(0.1)
    return pixels.float().mean((2, 3))
in_pieces(torch.arange(480).to(torch.uint8).reshape(40, 3, 2, 2), "killed", compute, piece=4)
"""


def test_a_kill_loses_the_piece_under_way_only(home: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(4):  # the fourth piece is under way, three are done
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(kept(home)) == 3
    pixels = torch.arange(480).to(torch.uint8).reshape(40, 3, 2, 2)
    counted = Counted()
    assert torch.equal(in_pieces(pixels, "killed", counted, piece=4), pixels.float().mean((2, 3)))
    assert counted.calls == [4] * 7
