"""The contract of an entry that this process does not trust, and never imports.

Of an attack, the federations, the checks and what they find are this process's: only the attack is in another one, confined
as in ``fedbench run --isolated``, and its answers are what is judged. Of a defense, a model and an entry of a package
the checks are made in the confined process of the entry. It can exit, hang or take too much without being believed, but
shares its memory with what judges it. A dataset is made in a process that reads what its user may read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fedbench.errors import FedbenchError, UserError
from fedbench.isolation.entries import isolated_class
from fedbench.isolation.home import Home, Process
from fedbench.isolation.limits import Limits
from fedbench.plugins import KINDS, Kind, is_file, registry_of, taken_by
from fedbench.plugins.files import read_source
from fedbench.testing.attacks import check_attack
from fedbench.testing.checking import check_entry
from fedbench.testing.finding import Finding, Status
from fedbench.texts import visible

LIMITS = Limits(seconds=60.0, total=600.0)
"""What an entry may take while it is examined: seconds for one call, to be imported and for everything, and memory."""
_CHECKS = "fedbench.testing.checking:check_entry"


@dataclass
class Examined:
    """An entry under examination.

    Attributes:
        path: its file, or its name. kind: what it is, or must be; None: not known yet. limits: of its processes.
        name: on its card, once that is known.
    """

    path: str
    kind: Kind | None = None
    limits: Limits = LIMITS
    name: str = ""

    def findings(self) -> Iterator[Finding]:
        """Every check, as it is made; the last one says so if the entry could not be imported, or came to no end.

        Raises:
            UserError: there is no such file.
        """
        if not is_file(self.path) and self.kind is not None and registry_of(self.kind).builtin(self.path):
            self.name = self.path
            yield from check_entry(self.kind, registry_of(self.kind).get(self.path))
            return
        path = Path(self.path)
        source, sha256 = read_source(path) if is_file(self.path) else (self.path, "")
        try:
            process = self._started(source)
            if self._apart and isinstance(source, bytes):
                process.close()
                yield from check_attack(isolated_class(path, source, sha256, self.limits))
            else:
                yield from map(_finding, process.findings())
        except FedbenchError as error:
            yield Finding(
                "process", "failed", str(error), "It must be importable, and let its checks come to their end."
            )

    @property
    def _apart(self) -> bool:
        """Whether its checks are made here, and only the entry is elsewhere."""
        return self.kind == "attack" and is_file(self.path)

    def _started(self, source: bytes | str) -> Process:
        """The process of the entry, which has said what it is."""
        free = self.kind == "dataset"
        process = Home(Path(self.path), source, self.kind, self.limits, free, _CHECKS).start()
        try:
            said = json.loads(process.described)
            kind, self.name = said["kind"], visible(str(said["card"]["name"]), 100)
        except (ValueError, TypeError, KeyError, RecursionError):
            kind = None
        if kind not in KINDS or self.kind not in (None, kind):
            raise UserError(f"{self.path}: what its process says of its class cannot be read.")
        self.kind = kind
        if isinstance(source, bytes) and (taken := taken_by(kind, self.name)):
            raise UserError(f"{self.path}: the name {self.name!r} on the card is taken by {taken}; give yours another.")
        if kind == "dataset" and not free:
            process.close()
            return self._started(source)
        return process


def _finding(texts: tuple[str, ...]) -> Finding:
    name, status, what, todo = (visible(each, 2_000) for each in (*texts, "", "", "", "")[:4])
    found: Status = next((each for each in get_args(Status) if each == status), "failed")
    return Finding(name, found, what, todo)
