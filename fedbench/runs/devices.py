"""GPUs that share the runs of a suite: which worker has which, and whether one more run fits beside those under way.

A device is ``"cpu"``, ``"cuda"`` or a list such as ``"cuda:0,cuda:1"``. Every worker sees one GPU alone, as ``cuda``, so
that nothing of a run can be on another, and its record does not tell them apart.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fedbench.runs.plan import Run

CPU, GPU = "cpu", "cuda"
"""What a worker computes on, as torch calls it."""
MEASURE = "fedbench.runs.devices:measured"
"""``module:function`` that tells a worker how much memory its GPU has."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHARE = 0.9
"""So much of the memory that was free at the beginning is given to runs."""
CONTEXT = 2**30
"""Bytes that a run takes beside its tensors: the code of CUDA, and what its allocator cannot use."""
KIN = 1.5
"""A run that nobody has measured is taken to need so many times as much as the largest of the same dataset and model."""

_NAME = re.compile(r"cuda(?::([0-9]{1,3}))?")


def is_list(device: str) -> bool:
    """Whether a text is ``cuda`` or a list of GPUs, each of them once."""
    found = [_NAME.fullmatch(each) for each in device.split(",")]
    return all(found) and len({each[1] or "0" for each in found if each}) == len(found)


def numbers(device: str) -> list[int]:
    """The numbers of the GPUs of such a list, and nothing for ``cpu``."""
    return [int(found[1] or 0) for each in device.split(",") if (found := _NAME.fullmatch(each))]


def see_only(number: int) -> None:
    """Let this process, which has not imported torch, see this one of the GPUs that it sees so far."""
    seen = [each.strip() for each in os.environ.get(VISIBLE, "").split(",") if each.strip()]
    os.environ[VISIBLE] = seen[number] if number < len(seen) else str(number)


@dataclass(frozen=True)
class Memory:
    """Of the GPU that a process sees, in bytes.

    Attributes:
        free: what nobody has now. peak: the most that this process has taken since its run began.
    """

    free: int
    peak: int


def measured() -> Memory | None:
    """As the driver and torch tell it, after what this process no longer needs was given back; None: there is no GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    return Memory(torch.cuda.mem_get_info()[0], peak)


class Room:
    """Which runs may begin on which GPU.

    One run may always be on a GPU. Another joins it if the memory that was free at the beginning holds both, by what runs of
    its kind (the same dataset, model, attack and defense) have taken; as long as that is not known of its dataset and model
    at all, and where it had not memory enough before, it is alone. Where no memory was measured nothing is bounded.
    """

    def __init__(self, alone: Iterable[Run] = ()) -> None:
        self._alone = frozenset(alone)
        self._free: dict[int, int] = {}
        self._taken: dict[int, dict[Run, float]] = {}
        self._peaks: dict[tuple[str, ...], int] = {}

    def measured(self, gpu: int | None, found: Memory | None) -> None:
        """A worker has told what is free on a GPU before any of our runs is there: the first time counts."""
        if gpu is not None and found is not None:
            self._free.setdefault(gpu, found.free)

    def fits(self, gpu: int | None, run: Run) -> bool:
        """Whether a run may begin now."""
        if gpu is None or gpu not in self._free:
            return True
        taken = self._taken.get(gpu, {})
        return not taken or sum(taken.values()) + self._need(run) <= SHARE * self._free[gpu]

    def begin(self, gpu: int | None, run: Run) -> None:
        """It begins."""
        if gpu is not None:
            self._taken.setdefault(gpu, {})[run] = self._need(run)

    def end(self, gpu: int | None, run: Run, found: Memory | None = None) -> None:
        """It has ended, and was measured, unless it did not get so far."""
        if gpu is not None:
            self._taken.get(gpu, {}).pop(run, None)
        if found is not None:
            for kind in _kinds(run):
                self._peaks[kind] = max(found.peak, self._peaks.get(kind, 0))

    def _need(self, run: Run) -> float:
        if run in self._alone:
            return float("inf")
        own, kin = (self._peaks.get(kind) for kind in _kinds(run))
        if own is not None:
            return own + CONTEXT
        return KIN * kin + CONTEXT if kin is not None else float("inf")


def fewest(gpus: Iterable[int], workers: Mapping[int, int]) -> int | None:
    """The GPU with the fewest workers, the first of several; None: there is none."""
    return min(gpus, key=lambda gpu: workers.get(gpu, 0), default=None)


def _kinds(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    scenario = run.scenario
    kin = (scenario.dataset, scenario.model)
    return (*kin, scenario.attack, scenario.defense), kin
