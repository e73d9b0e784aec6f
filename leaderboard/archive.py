"""The published records as one file to deposit: ``python leaderboard/archive.py [FOLDER]`` (default: build), `make archive`.

It writes ``fedbench-records-VERSION.tar.gz``: the files of ``leaderboard/results``, the citation, the licence, and
``SHA256SUMS`` of them all (``sha256sum -c SHA256SUMS`` in the folder that it unpacks to). The same files make the same bytes,
with the same zlib: members are sorted, and owners, times and rights are fixed.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import tarfile
from pathlib import Path

from fedbench import __version__
from fedbench.files import write_file

ROOT = Path(__file__).parents[1]
SUMS = "SHA256SUMS"


def members(root: Path) -> dict[str, bytes]:
    """What goes in, by its name in the archive, sorted; hidden files of ``leaderboard/results`` do not."""
    results = root / "leaderboard" / "results"
    files = {f"results/{path.relative_to(results).as_posix()}": path for path in results.rglob("*") if path.is_file()}
    files = {name: path for name, path in files.items() if "/." not in name}
    files |= {name: root / name for name in ("CITATION.cff", "LICENSE")}
    return {name: files[name].read_bytes() for name in sorted(files)}


def packed(contents: dict[str, bytes], folder: str) -> bytes:
    """A tar.gz of ``contents`` and their sums, all below ``folder``."""
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in contents.items())
    out = io.BytesIO()
    with (
        gzip.GzipFile("", "wb", 9, out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, data in {SUMS: sums.encode(), **contents}.items():
            info = tarfile.TarInfo(f"{folder}/{name}")  # nobody's, of 1970, 0644
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def main(target: Path, root: Path = ROOT) -> Path:
    """Write the archive into ``target``; its path."""
    name = f"fedbench-records-{__version__}"
    path = target / f"{name}.tar.gz"
    write_file(path, packed(members(root), name))
    return path


if __name__ == "__main__":
    written = main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build")
    print(f"{written}: {hashlib.sha256(written.read_bytes()).hexdigest()}")
