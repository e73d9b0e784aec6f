"""How a worker process begins."""

from __future__ import annotations

import gc
from multiprocessing.connection import Connection


def begin(connection: Connection, threads: int | None, gpu: int | None, measure: str) -> None:
    """Import what a worker needs, and be one; arguments as of :func:`fedbench.runs.worker.work`.

    Of the GPUs it sees ``gpu`` alone, which has to be settled before torch is imported; None: it computes on the CPU.

    What torch makes when it is imported stays to the end. The collector of garbage does not look through it meanwhile, nor
    when the process ends: that would be a third of the time that a worker without work takes. What is imported later, such
    as packages that want everything of theirs freed, is none of this.
    """
    gc.disable()
    from fedbench.runs.devices import see_only
    from fedbench.runs.worker import work

    if gpu is not None:
        see_only(gpu)

    gc.freeze()
    gc.enable()
    work(connection, threads, measure if gpu is not None else None)
