"""Long computations over many images in pieces, each kept as soon as it is done.

A piece is found again by its content, so a process that was killed loses the piece it was at, and a later run, another
seed, or a catalogue that begins alike starts from what is there. Kept in ``vision/`` of the data home, which may be
removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fedbench.data.home import cache_home, replacing

KEPT_FROM = 16
"""Images; results of fewer are computed again each time."""

Progress = Callable[[int, int], None]
"""Called with the number of images that are done, and of all."""

_DIGEST = hashlib.sha256().digest_size


def in_pieces(
    pixels: torch.Tensor,
    identity: str,
    compute: Callable[[torch.Tensor], torch.Tensor],
    *,
    piece: int = 64,
    keep: bool = True,
    progress: Progress | None = None,
) -> torch.Tensor:
    """``compute(pixels)``, piece by piece, from the cache where it was computed before.

    What is missing is computed in an order of this process's own: processes that need the same share the work.
    A file that is damaged is computed again; a folder that cannot be written is done without.

    Args:
        pixels: uint8 [n, ...].
        identity: everything else that the result depends on: what computes it, its version, weights, parameters.
        compute: images [k, ...] -> [k, ...]; the result of an image must not depend on the others, on the order of
            calls, or on random draws that ``identity`` does not fix.
        piece: images of a call, at most.
        keep: False for what no other run will ask for: nothing is looked up, nothing is kept.
        progress: called after every piece.

    Returns:
        The results in the order of ``pixels``, on their device, without gradients.
    """
    total = len(pixels)
    parts = pixels.split(piece) if total else (pixels,)
    keeps = keep and total >= KEPT_FROM
    paths = [_path(identity, part) for part in parts] if keeps else []
    results: list[torch.Tensor | None] = [None] * len(parts)
    done = 0

    def finish(place: int, result: torch.Tensor) -> None:
        nonlocal done
        results[place] = result
        done += len(parts[place])
        if progress is not None:
            progress(done, total)

    for place, path in enumerate(paths):
        found = _read(path, len(parts[place]))
        if found is not None:
            finish(place, found.to(pixels.device))
    missing = [place for place, result in enumerate(results) if result is None]
    if keeps:
        random.Random().shuffle(missing)
    for place in missing:
        found = _read(paths[place], len(parts[place])) if keeps else None
        if found is None:
            with torch.inference_mode():
                computed = compute(parts[place])
            found = computed.clone()  # outside of inference mode, so that it may take part in gradients
            if keeps:
                _write(paths[place], found)
        finish(place, found.to(pixels.device))
    return torch.cat([result for result in results if result is not None])


def _path(identity: str, part: torch.Tensor) -> Path:
    digest = hashlib.sha256(f"{identity}\x1f{part.dtype}\x1f{tuple(part.shape)}\x1f".encode())
    digest.update(part.contiguous().cpu().numpy().data)
    name = digest.hexdigest()
    return cache_home() / "vision" / name[:2] / f"{name}.npy"


def _read(path: Path, rows: int) -> torch.Tensor | None:
    """What is kept there, None when there is nothing or it is not whole."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
            return None
        kept = torch.from_numpy(np.load(io.BytesIO(content[_DIGEST:]), allow_pickle=False))
    except (OSError, ValueError):
        return None
    return kept if len(kept) == rows else None


def _write(path: Path, result: torch.Tensor) -> None:
    """SHA-256 of what follows, then NumPy's own format."""
    out = io.BytesIO()
    np.save(out, result.detach().cpu().numpy(), allow_pickle=False)
    content = out.getvalue()
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(hashlib.sha256(content).digest() + content)
