"""The images that an attack showed, beside the record of its run.

They lie beside the record ``<run id>.parquet`` as ``<run id>.images.parquet``, one row for each item that has an image:
how similar the defense leaves the original one, and the last image that was uploaded in its place. Pixels of the dataset
itself are not in it.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from fedbench.defenses.chain import Chain
from fedbench.errors import ResultsError
from fedbench.federation.defense import Defense
from fedbench.federation.simulation import Federation
from fedbench.runs.results import reason, write_whole

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
SUFFIX = ".images.parquet"
METADATA = b"fedbench.images"


@dataclass(frozen=True)
class Uploaded:
    """The last image of every item whose image was replaced, and what the defense does to the original ones.

    Attributes:
        eps: bound of the attack, in steps of 8-bit pixels. threshold: below which similarity an image is flagged; None:
            nobody looks.
        items: int64 [k], ascending. epochs: int64 [k], from which on each was shown. pixels: uint8 [k, 3, H, W].
        clean_items: int64 [n], ascending, the items with an original image.
        similarity: float32 [n], ``cos(phi(x), phi(purify(x)))`` of the original images.
    """

    eps: float
    threshold: float | None
    items: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    pixels: npt.NDArray[np.uint8]
    clean_items: npt.NDArray[np.int64]
    similarity: npt.NDArray[np.float32]

    @classmethod
    def of(cls, federation: Federation) -> Uploaded | None:
        """What a federation was shown; None where no image was replaced."""
        gallery = federation.gallery
        if gallery is None or not gallery.uploads or federation.adversary is None:
            return None
        last = {
            item: (upload.epoch, image)
            for upload in gallery.uploads
            for item, image in zip(upload.items.tolist(), upload.pixels.cpu(), strict=True)
        }
        items = sorted(last)
        return cls(
            float(federation.adversary.eps),
            threshold_of(federation.defense),
            np.array(items, dtype=np.int64),
            np.array([last[item][0] for item in items], dtype=np.int64),
            torch.stack([last[item][1] for item in items]).numpy(),
            gallery.with_image.cpu().numpy(),
            gallery.similarity.cpu().numpy(),
        )

    def table(self, run_id: str) -> pa.Table:
        """All of it, with what the file says of itself."""
        import pyarrow as pa

        rows = np.union1d(self.clean_items, self.items)
        clean = dict(zip(self.clean_items.tolist(), self.similarity.tolist(), strict=True))
        uploads = dict(zip(self.items.tolist(), zip(self.epochs.tolist(), self.pixels, strict=True), strict=True))
        shown = [uploads.get(item) for item in rows.tolist()]
        columns = {
            "item": pa.array(rows),
            "similarity": pa.array([clean.get(item) for item in rows.tolist()], pa.float32()),
            "epoch": pa.array([each and each[0] for each in shown], pa.int32()),
            "pixels": pa.array([each and each[1].tobytes() for each in shown], pa.binary()),
        }
        about = {
            "version": VERSION,
            "run_id": run_id,
            "eps": self.eps,
            "threshold": self.threshold,
            "size": self.pixels.shape[2:],
        }
        return pa.table(columns).replace_schema_metadata({METADATA: json.dumps(about).encode()})

    def write(self, folder: Path, run_id: str) -> Path:
        """Write the file beside the record, whole or not at all.

        Raises:
            ResultsError: when the folder cannot be written to.
        """
        final = uploaded_path(folder, run_id)
        write_whole(self.table(run_id), final)
        return final


def read_uploaded(path: Path) -> Uploaded:
    """The images in a file.

    Raises:
        ResultsError: when it is damaged, of another kind, or of a newer version.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = ["item", "similarity", "epoch", "pixels"]
        table = pq.read_table(path, columns=columns, partitioning=None, page_checksum_verification=True)
        about = json.loads((table.schema.metadata or {})[METADATA])
        if about["version"] > VERSION:
            raise ResultsError(f"images {path} have version {about['version']}, newer than this fedbench.")
        height, width = about["size"]
        clean = table.filter(table["similarity"].is_valid())
        shown = table.filter(table["pixels"].is_valid())
        pixels = np.frombuffer(b"".join(shown["pixels"].to_pylist()), dtype=np.uint8)
        return Uploaded(
            float(about["eps"]),
            about["threshold"] if about["threshold"] is None else float(about["threshold"]),
            shown["item"].to_numpy(),
            shown["epoch"].to_numpy().astype(np.int64),
            pixels.reshape(len(shown), 3, height, width),
            clean["item"].to_numpy(),
            clean["similarity"].to_numpy(),
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise ResultsError(f"images {path} are damaged: {reason(error)}.") from None


def threshold_of(defense: Defense) -> float | None:
    """Below which similarity a defense flags an image; of a chain, the highest of its parts'. None: it does not look."""
    parts = defense.parts if isinstance(defense, Chain) else [defense]
    found = [float(rho) for part in parts if (rho := getattr(part, "rho", None)) is not None]
    return max(found, default=None)


def uploaded_path(folder: Path, run_id: str) -> Path:
    """Where the uploaded images of a run lie."""
    return folder / f"{run_id}{SUFFIX}"


def keep_uploaded(federation: Federation | None, folder: Path, run_id: str) -> None:
    """Write what a federation was shown, or remove what an earlier execution left, which does not belong to a new record.

    Raises:
        ResultsError: when the folder cannot be written to.
    """
    uploaded = Uploaded.of(federation) if federation is not None else None
    if uploaded is not None:
        uploaded.write(folder, run_id)
        return
    with contextlib.suppress(OSError):
        uploaded_path(folder, run_id).unlink(missing_ok=True)
