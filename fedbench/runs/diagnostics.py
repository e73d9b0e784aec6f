"""Diagnostics of rounds: what every client's upload looked like, and which filter or rule dropped it.

They lie beside the record ``<run id>.parquet`` as ``<run id>.rounds.parquet``, one row for each client of each round kept.
Looking at a round changes nothing in it: no random number is drawn and no tensor written.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedbench.defenses.chain import Chain
from fedbench.defenses.robust import RobustAggregation, client_gram
from fedbench.entries.cards import DefenseFamily
from fedbench.errors import UserError
from fedbench.federation.defense import Defense, ServerView
from fedbench.federation.simulation import Federation
from fedbench.federation.updates import Updates
from fedbench.runs.results import write_whole

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 2
EVERY = 10
SUFFIX = ".rounds.parquet"
METADATA = b"fedbench.rounds"

COLUMNS = {
    "round": "int32",
    "epoch": "int32",
    "client": "int64",
    "malicious": "bool",
    "norm": "float32",
    "cosine_benign": "float32",
    "cosine_malicious": "float32",
    "from_mean": "float32",
    "x": "float32",
    "y": "float32",
    "uniformity": "float64",
    "dropped_by": "string",
}
"""Columns of the file, with their types.

``round`` counts from 0, ``epoch`` from 1. ``norm``: of the whole upload. ``cosine_benign``, ``cosine_malicious``: mean cosine
similarity with the round's other benign, or malicious, uploads. ``from_mean``: distance from the mean upload of the round.
``x``, ``y``: the first two principal components. ``uniformity``: UNION's d_i. ``dropped_by``: the filter that dropped it, or
the rule over whole updates that left it out (Krum and its kin, DnC); ``union+multi-krum`` where both did.
Null: undefined (nobody to compare with, an upload of zeros, one that is not finite, no UNION), and nobody dropped it.
"""


@dataclass(frozen=True)
class Geometry:
    """How the n uploads of a round lie, each float64 [n] and by ascending client id; NaN where undefined.

    Attributes:
        norm: |x_i|.
        cosine_benign, cosine_malicious: mean over the other clients k of that group of ``x_i . x_k / (|x_i| |x_k|)``.
        from_mean: ``|x_i - mean of all|``.
        x, y: the first two principal components of the uploads, ``x_i - mean of all`` along the directions in which their
            variance is largest. Sign: the entry with the largest absolute value is positive.
    """

    norm: torch.Tensor
    cosine_benign: torch.Tensor
    cosine_malicious: torch.Tensor
    from_mean: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor


def geometry(updates: Updates, malicious: torch.Tensor, num_items: int) -> Geometry:
    """Norms, cosine similarities and principal components of whole uploads (item rows and dense gradients together).

    All of it comes from the inner products of the uploads, so none is laid out over all items. The components are exact, and
    a round's own: axes of different rounds have nothing to do with each other. A projection common to all rounds would
    have to be drawn before training, blind to where uploads differ, or keep the uploads; and what a picture of a round is to
    show is whether the groups separate in that round. O(sum over items of c_j^2 d + n^3).

    Args:
        updates: the uploads. malicious: bool [n], aligned with ``updates.clients``. num_items: M.
    """
    order = torch.argsort(updates.clients)
    norm = updates.square_norms().sqrt().double().index_select(0, order)
    usable = updates.usable()
    finite = usable.index_select(0, order).cpu()
    kept = updates if bool(finite.all()) else updates.keep(usable)
    gram = inner_products(kept, num_items).cpu()
    group = malicious.index_select(0, order).cpu()[finite]
    length = gram.diagonal().clamp(min=0).sqrt()
    there = length > 0
    inverse = torch.where(there, 1 / length, 0.0)
    groups = (torch.stack([~group, group], 1) & there[:, None]).double()
    total = (gram * inverse * inverse[:, None]) @ groups - groups  # without oneself
    # 0 / 0 is NaN: nobody else is there.
    cosine = (total / (groups.sum(0) - groups)).masked_fill(~there[:, None], torch.nan)
    cosine = cosine.masked_fill(groups.sum(0) - groups == 0, torch.nan)
    mean = gram.mean(0)
    centered = gram - mean - mean[:, None] + mean.mean()

    def everybody(values: torch.Tensor) -> torch.Tensor:
        out = torch.full((len(finite),), torch.nan, dtype=torch.float64)
        out[finite] = values
        return out

    axes = principal(centered)
    return Geometry(
        norm.cpu(),
        everybody(cosine[:, 0]),
        everybody(cosine[:, 1]),
        everybody(centered.diagonal().clamp(min=0).sqrt()),
        everybody(axes[:, 0]),
        everybody(axes[:, 1]),
    )


def inner_products(updates: Updates, num_items: int) -> torch.Tensor:
    """float64 [n, n]: inner products of whole uploads, with what is common to them, by ascending client id."""
    gram = client_gram(replace(updates, common=None), num_items)
    if updates.common is None:
        return gram
    gradient = updates.common.gradient.double()
    inner = gram.new_zeros(len(gram))
    for block in updates.rows:
        products = (block.grad().double() * gradient.index_select(0, block.item)).sum(1)
        inner.index_add_(0, block.client, products)
    order = torch.argsort(updates.clients)
    inner, share = inner.index_select(0, order), updates.common.share.double().index_select(0, order)
    cross = torch.outer(share, inner)
    return gram + cross + cross.T + torch.outer(share, share) * gradient.square().sum()


def principal(centered: torch.Tensor) -> torch.Tensor:
    """float64 [n, 2]: the first two principal components, from centred inner products [n, n]; 0 where there are fewer.

    With ``X X^T = U S^2 U^T`` they are the first columns of ``U S``.
    """
    import scipy.linalg

    n = len(centered)
    out = torch.zeros(n, 2, dtype=torch.float64)
    if n < 2:
        return out
    values, vectors = scipy.linalg.eigh(centered.numpy(), subset_by_index=(n - 2, n - 1))
    values, vectors = torch.from_numpy(values).flip(0), torch.from_numpy(vectors).flip(1)
    # Below this a component is rounding of the inner products.
    values = torch.where(values > 1e-12 * centered.diagonal().sum(), values, 0.0)
    out[:] = vectors * values.sqrt()
    largest = out.gather(0, out.abs().argmax(0, keepdim=True))
    return out * torch.where(largest < 0, -1.0, 1.0)


class Diagnostics:
    """Collects the diagnostics of a run.

    Args:
        every: rounds 0, ``every``, 2 ``every``, ... are kept.

    Raises:
        UserError: when ``every`` is below 1.
    """

    def __init__(self, every: int = EVERY) -> None:
        if every < 1:
            raise UserError(f"diagnose_every = {every} must be at least 1.")
        self.every = every
        self._malicious = torch.zeros(0, dtype=torch.int64)
        self._filters: list[str] = []
        self._rule = ""
        self._kept: list[Mapping[str, Any]] = []

    def watch(self, federation: Federation) -> None:
        """Observe this federation from its next round on."""
        rule = federation.defense
        parts = rule.parts if isinstance(rule, Chain) else [rule]
        self._rule = rule.card.name
        self._filters = [part.card.name for part in parts if part.card.family == DefenseFamily.FILTER or _chooses(part)]
        self._malicious = federation.population.malicious.to(federation.device)
        self._kept.clear()
        federation.observer = self

    def wants(self, number: int) -> bool:
        """Whether the round of this number is kept."""
        return number % self.every == 0

    def look(self, received: Updates, kept: Updates, server: ServerView) -> float:
        """Keep a round.

        Args:
            received: what arrived. kept: what the filters left of it. server: with the notes of the whole round.

        Returns:
            The seconds that this took.
        """
        begin = time.perf_counter()
        clients = torch.sort(received.clients).values
        malicious = torch.isin(received.clients, self._malicious)
        places = geometry(received, malicious, len(server.params.items))
        steps = server.notes.filtered if server.notes is not None else []
        names = [name for name, _, _ in steps] or [self._rule]
        dropped = droppers(clients, [(before, after) for _, before, after in steps] or [(received, kept)])
        names_of = [names[step] if step >= 0 else None for step in dropped.tolist()]
        for rule, whom in server.notes.left_out if server.notes is not None else []:
            for place in torch.isin(clients, whom).nonzero().squeeze(1).tolist():
                earlier = names_of[place]
                names_of[place] = rule if earlier is None else f"{earlier}+{rule}"
        spread = torch.full((len(clients),), torch.nan, dtype=torch.float64)
        if server.notes is not None and server.notes.uniformity is not None:
            whose, values = server.notes.uniformity
            spread[torch.searchsorted(clients, whose).cpu()] = values.double().cpu()
        self._kept.append(
            {
                "round": torch.full((len(clients),), server.round),
                "epoch": torch.full((len(clients),), server.epoch),
                "client": clients.cpu(),
                "malicious": torch.isin(clients, self._malicious).cpu(),
                **{name: getattr(places, name) for name in Geometry.__dataclass_fields__},
                "uniformity": spread,
                "dropped_by": names_of,
            }
        )
        return time.perf_counter() - begin

    def table(self, run_id: str) -> pa.Table:
        """All rows kept, with what the file says of itself."""
        import numpy as np
        import pyarrow as pa

        columns = {}
        for name, kind in COLUMNS.items():
            if kind == "string":
                values = [each for kept in self._kept for each in kept[name]]
                columns[name] = pa.array(values, pa.string())
            else:
                whole = [kept[name].numpy() for kept in self._kept] or [np.zeros(0)]
                columns[name] = pa.array(np.concatenate(whole), from_pandas=True).cast(pa.type_for_alias(kind))
        about = {"version": VERSION, "run_id": run_id, "every": self.every, "filters": self._filters}
        return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})

    def write(self, folder: Path, run_id: str) -> Path:
        """Write the file beside the record, whole or not at all.

        Raises:
            ResultsError: when the folder cannot be written to.
        """
        final = rounds_path(folder, run_id)
        write_whole(self.table(run_id), final)
        return final


def droppers(clients: torch.Tensor, steps: Sequence[tuple[Updates, Updates]]) -> torch.Tensor:
    """int64 [n], on the CPU: which step dropped each client first; -1: none.

    A client is gone when it is missing from what a filter left, or named in ``rejected`` there (unless that names everybody:
    then all stay, as in :meth:`Updates.settled`). Rules that aggregate note for themselves whom they leave out.

    Args:
        clients: int64 [n], ascending. steps: what each filter in turn received and left.
    """
    out = torch.full_like(clients, -1)
    for step, (before, after) in enumerate(steps):
        gone = _present(clients, before) & ~_present(clients, after)
        out = torch.where(gone & (out < 0), step, out)
    return out.cpu()


def _chooses(part: Defense) -> bool:
    """Whether a defense is a rule over whole updates that leaves clients out."""
    return isinstance(part, RobustAggregation) and part.chooses and part.params.scope == "client"


def _present(clients: torch.Tensor, updates: Updates) -> torch.Tensor:
    """Bool [n]: which of ``clients`` still count; all, once uploads have been mixed."""
    if updates.mixed is not None:
        return torch.ones_like(clients, dtype=torch.bool)
    there = updates.clients
    if updates.rejected is not None and not bool(updates.rejected.all()):
        there = there[~updates.rejected]
    return torch.isin(clients, there)


def rounds_path(folder: Path, run_id: str) -> Path:
    """Where the diagnostics of a run lie."""
    return folder / f"{run_id}{SUFFIX}"


def discard(folder: Path, run_id: str) -> None:
    """Remove diagnostics of an earlier execution, which do not belong to a new record."""
    with contextlib.suppress(OSError):
        rounds_path(folder, run_id).unlink(missing_ok=True)
