"""Whether a change of the engine's code changes what it computes: curves and parameters, bit for bit.

    python tests/equivalence/curves.py record before.json.gz     # in a checkout of the code before the change
    python tests/equivalence/curves.py compare before.json.gz    # after it, on the same machine

Every attack, defense, model and protocol takes part, on the smallest embedded data and for a few rounds. At every
evaluation the metrics are kept as hexadecimal floats, and a hash of all public parameters and users' embeddings: what
metrics, which are counts, would round away does not escape. Other processors and versions of torch round otherwise: a file
is only good where it was made.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.errors import UserError


def _found(*places: str) -> Any:
    """An object, wherever the code at hand keeps it: this file runs in checkouts of different layouts."""
    for place in places:
        module, _, name = place.partition(":")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), name)
    raise SystemExit(f"none of {', '.join(places)} is here.")


Scenario = _found("fedbench.scenarios.scenario:Scenario", "fedbench.scenario:Scenario")
run = _found("fedbench.runs.run:run", "fedbench.run:execute")

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("icde24", "mf"): {"epochs": 4, "evaluate_every": 2},
    ("icde24", "ncf"): {"epochs": 3, "evaluate_every": 3},
    ("ijcai22", "ncf"): {"epochs": 3, "evaluate_every": 3, "learning_rate": 0.01},
    ("wsdm22", "mf"): {"epochs": 3, "evaluate_every": 3, "attack_start": 2},
    ("wsdm22", "ncf"): {"epochs": 3, "evaluate_every": 3, "attack_start": 2},
    ("aaai23", "mf"): {"epochs": 2, "rounds_per_epoch": 12, "learning_rate": 0.01},
    ("aaai23", "sasrec"): {"epochs": 2, "rounds_per_epoch": 6},
}
"""Protocol and model, with the fields that make a run short."""

AGAINST = {"icde24": "explicit-boost", "ijcai22": "a-hum", "wsdm22": "explicit-boost", "aaai23": "cluster-attack"}
"""The attack under which a protocol's defenses run."""

CHAINS = ("union+multi-krum", "union+norm-bound", "pieck-regularizer+norm-bound", "fl-wbc+median")

VARIANTS: tuple[tuple[str, str, str, str, dict[str, Any]], ...] = (
    ("icde24", "mf", "pieck-uea", "none", {"row_clip": 0.05}),
    ("icde24", "mf", "pieck-ipe", "median", {"loss": "bpr"}),
    (
        "icde24",
        "mf",
        "a-ra",
        "none",
        {"server_optimizer": "adam", "user_optimizer": "lazy-adam", "learning_rate": 0.01},
    ),
    ("icde24", "mf", "fedrecattack", "krum", {"malicious_clients": "compromised", "duplicate_rows": "last"}),
    ("icde24", "ncf", "random", "none", {"negatives": "epoch", "regularization": 0.01}),
    ("icde24", "mf", "p1", "none", {"schedule": "independent", "aggregation": "weighted", "duplicates": "keep"}),
    ("icde24", "mf", "cluster-attack", "union", {"regularization": 0.001, "regularized": "all", "loss": "bpr"}),
    ("wsdm22", "mf", "p2", "none", {"er_mask": "train+test", "er_eligible": "train+test", "attack_start": 1}),
    ("aaai23", "mf", "fed-attack", "norm-bound", {"malicious_clients": "injected", "malicious_pool": None}),
    ("ijcai22", "mf", "bandwagon", "none", {"learning_rate": 0.05, "reduction": "sum"}),
)
"""Switches of the protocol that no preset turns."""


def scenarios() -> Iterator[Any]:
    """All that apply: every attack without a defense, every defense against one attack, some chains and variants."""
    for (protocol, model), _ in SETTINGS.items():
        for attack in ATTACKS.names():
            yield from _made(protocol, model, attack, "none", {})
        for defense in (*DEFENSES.names(), *CHAINS):
            if defense != "none":
                yield from _made(protocol, model, AGAINST[protocol], defense, {})
                yield from _made(protocol, model, "pieck-uea", defense, {})
    for protocol, model, attack, defense, fields in VARIANTS:
        yield from _made(protocol, model, attack, defense, fields)


def _made(protocol: str, model: str, attack: str, defense: str, fields: dict[str, Any]) -> Iterator[Any]:
    short = SETTINGS.get((protocol, model), {"epochs": 3, "evaluate_every": 3})
    untargeted = ATTACKS.get(attack).card.goal == "degrade"
    scenario = Scenario(
        dataset="longtail-small",
        model=model,
        attack=attack,
        defense=defense,
        malicious_ratio=0.0 if attack == "none" else 0.05,
        protocol=protocol,
        target="none" if untargeted else "random:1",
        protocol_params={**short, **fields},
    )
    try:
        _ = scenario.id
    except UserError:  # this attack or defense does not apply here
        return
    yield scenario


def curve_of(scenario: Any) -> list[dict[str, str]]:
    """Metrics, hexadecimal, and the hash of the parameters at every evaluation of the run with seed 0."""
    federations: list[Any] = []
    hashes: list[str] = []

    def evaluated(_: Any) -> None:
        federation = federations[0]
        digest = hashlib.sha256()
        for value in (federation.params.items, *federation.params.dense.values(), federation.users):
            digest.update(value.contiguous().numpy().tobytes())
        hashes.append(digest.hexdigest())

    record = run(scenario, 0, on_start=federations.append, on_evaluation=evaluated)
    if record.status == "failed":
        return [{"failed": str(record.error).splitlines()[0]}]
    curve = [{name: float(value).hex() for name, value in point.items()} for point in record.curve]
    return [{**point, "parameters": value} for point, value in zip(curve, hashes, strict=True)]


def here() -> dict[str, str]:
    """What the last bits depend on."""
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {"torch": torch.__version__, "python": platform.python_version(), "processor": model.partition(": ")[2]}


def main(verb: str, file: Path) -> int:
    """Record or compare; the number of scenarios that differ."""
    torch.set_num_threads(1)
    found = {scenario.id: {"scenario": str(scenario), "curve": curve_of(scenario)} for scenario in scenarios()}
    if verb == "record":
        with gzip.open(file, "wt", encoding="utf-8") as out:
            json.dump({"made with": here(), "runs": found}, out, indent=1, sort_keys=True)
        print(f"{len(found)} scenarios recorded in {file}")
        return 0
    with gzip.open(file, "rt", encoding="utf-8") as recorded:
        before = json.load(recorded)
    if before["made with"] != here():
        print(f"recorded elsewhere ({before['made with']}): bits may differ for that reason alone")
    different = [
        key for key in sorted(before["runs"].keys() | found.keys()) if before["runs"].get(key) != found.get(key)
    ]
    for key in different:
        known = before["runs"].get(key) or found[key]
        there = "differs" if key in found and key in before["runs"] else "is on one side only"
        print(f"{there}: {key} {known['scenario']}")
    print(f"{len(found)} scenarios, {len(found) - len(different)} equal bit for bit, {len(different)} different")
    return len(different)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("record", "compare"):
        raise SystemExit(__doc__)
    sys.exit(min(main(sys.argv[1], Path(sys.argv[2])), 100))
