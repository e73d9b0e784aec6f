"""The process that runs the code of a bundle: ``python -m fedbench.submission.worker order.json``, in a folder of its own."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path


def main(order_file: str) -> None:
    """Load the entry, note its card, and write the record of each run into a folder of its number."""
    warnings.simplefilter("ignore")
    import torch

    from fedbench.plugins import load_file, registry_of
    from fedbench.plugins.card_data import card_data
    from fedbench.runs.results import write_record
    from fedbench.runs.run import run
    from fedbench.scenarios.scenario import Scenario
    from fedbench.submission.container import CARD
    from fedbench.submission.manifest import canonical

    order = json.loads(Path(order_file).read_text(encoding="utf-8"))
    torch.set_num_threads(1)  # as in the workers of `fedbench run`
    kind, name = order["kind"], order["name"]
    registry = registry_of(kind)
    cls = registry.get(name) if order["file"] is None else load_file(order["file"], kind).cls
    Path(CARD).write_bytes(canonical(card_data(cls)))
    with registry.lent(name, cls):  # which is package/name, if the file is that of a package
        for number, each in enumerate(order["runs"]):
            record = run(Scenario(**each["scenario"]), each["seed"], device=each["device"])
            write_record(record, Path(str(number)))


if __name__ == "__main__":
    from fedbench.errors import FedbenchError

    try:
        main(sys.argv[1])
    except FedbenchError as error:
        sys.exit(" ".join(str(error).split()))
