"""What no input may take, however malformed it is."""

from __future__ import annotations

import resource
import sys
import time


class Bounded:
    """Fails when what is inside takes over ten seconds, or lets the memory grow by a gigabyte."""

    def __enter__(self) -> None:
        self.begin, self.memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def __exit__(self, *_: object) -> None:
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - self.memory
        assert grown * (1 if sys.platform == "darwin" else 1024) < 1e9
        assert time.process_time() - self.begin < 10
