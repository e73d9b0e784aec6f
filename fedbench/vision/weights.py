"""Files of weights that no package brings: at hand, or downloaded once."""

from __future__ import annotations

import os
from pathlib import Path

from fedbench.data.catalogue import Download
from fedbench.data.download import Progress, download
from fedbench.data.home import cache_home, check
from fedbench.errors import DataError


def weights_file(spec: Download, progress: Progress | None = None) -> Path:
    """The path of a pinned file of weights, its SHA-256 checked.

    It is looked for in the folder that ``FEDBENCH_WEIGHTS`` names, then in ``weights/`` of the data home, where it is
    downloaded to if it is in neither. A file that did not change since it was checked is not read again for that.

    Raises:
        DataError: the file at hand is another one, or it cannot be downloaded.
    """
    path = weights_here(spec)
    if path is not None:
        if spec.sha256 is not None:
            try:
                check(path, spec.sha256)
            except DataError:
                raise DataError(
                    f"{path}: not the published file (SHA-256 {spec.sha256[:12]}...); remove it, or replace it by "
                    f"that of {spec.url}."
                ) from None
        return path
    try:
        return download(spec, cache_home() / "weights", progress=progress)
    except DataError as error:
        raise DataError(f"{error} A copy at hand is used from the folder that FEDBENCH_WEIGHTS names.") from error


def weights_here(spec: Download) -> Path | None:
    """Where a file of weights lies on this machine, unchecked; None where it would have to be downloaded."""
    home = cache_home() / "weights"
    given = os.environ.get("FEDBENCH_WEIGHTS")
    folders = (Path(os.path.expanduser(given)), home) if given else (home,)
    return next((folder / spec.filename for folder in folders if (folder / spec.filename).is_file()), None)
