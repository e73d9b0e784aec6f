"""How a worker process begins."""

from __future__ import annotations

import gc
from multiprocessing.connection import Connection


def begin(connection: Connection, threads: int | None) -> None:
    """Import what a worker needs, and be one; arguments as of :func:`fedbench.runs.worker.work`.

    What torch makes when it is imported stays to the end. The collector of garbage does not look through it meanwhile, nor
    when the process ends: that would be a third of the time that a worker without work takes. What is imported later, such
    as packages that want everything of theirs freed, is none of this.
    """
    gc.disable()
    from fedbench.runs.worker import work

    gc.freeze()
    gc.enable()
    work(connection, threads)
