"""Rounds of every entry of the registry on the stand-in device: kernel launches, and how often the host waits, a round.

    python tests/device_rounds.py                                 # measure, and rewrite tests/launches.json
    python tests/device_rounds.py icde24/mf/pieck-uea/median ...  # print, by place

A case is called ``protocol/model/attack/defense``, or ``.../defense@scope``. Rounds are the second and the third of the first
epoch of an attack, on the embedded data, with 64 clients each.
"""

from __future__ import annotations

import functools
import itertools
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from standin_device import Seen, StandInDevice

from fedbench.attacks import ATTACKS
from fedbench.data import Split
from fedbench.defenses import DEFENSES
from fedbench.errors import UserError
from fedbench.federation.population import Cohort
from fedbench.federation.simulation import Federation
from fedbench.runs.task import split_of, task_of
from fedbench.scenarios.scenario import Scenario

TABLE = Path(__file__).parent / "launches.json"
COMMAND = "python tests/device_rounds.py"
ROUNDS = 2

SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("icde24", "mf"): {"clients_per_round": 64},
    ("icde24", "ncf"): {"clients_per_round": 64},
    ("icde24", "neumf"): {"clients_per_round": 64},
    ("icde24", "pfedrec"): {"clients_per_round": 64},
    ("icde24", "lightgcn"): {"clients_per_round": 64},
    ("ijcai22", "ncf"): {"clients_per_round": 64},
    ("wsdm22", "mf"): {"clients_per_round": 64, "attack_start": 1},
    ("wsdm22", "ncf"): {"clients_per_round": 64, "attack_start": 1},
    ("aaai23", "mf"): {"clients_per_round": 64},
    ("aaai23", "sasrec"): {"clients_per_round": 64},
    ("tois", "vncf"): {"clients_per_round": 64, "attack_start": 1},
    ("tois", "lightvgcn"): {"clients_per_round": 64, "attack_start": 1},
}
"""Protocol and model, with the fields that bring an attack into the first rounds."""

AGAINST = {
    "icde24": "explicit-boost",
    "ijcai22": "a-hum",
    "wsdm22": "explicit-boost",
    "aaai23": "cluster-attack",
    "tois": "psmu-v",
}
"""The attack under which the defenses of a protocol are counted."""

PARAMS: dict[str, dict[str, Any]] = {
    "vncf": {"extractor": "random-conv"},
    "lightvgcn": {"extractor": "random-conv"},
    "psmu-v": {"eps": 16},
    "psmu-pp": {"eps": 16},
    "psmu-v-adaptive": {"eps": 16},
    "popularity-image": {"eps": 16},
    "adaptive": {"attack": "explicit-boost"},
    "gdmpd": {"denoiser": "spectral", "t_star": 45, "steps": 5},
    "gdmpd-unguided": {"denoiser": "spectral", "t_star": 45, "steps": 5},
}
"""Parameters without which an entry cannot run here."""


def scenario(name: str) -> Scenario | None:
    """The scenario of a case; None: these do not go together."""
    protocol, model, attack, rule = name.split("/")
    defense, _, scope = rule.partition("@")
    card = ATTACKS.get(attack).card
    shows = card.channel.shows_images
    target = "none" if card.goal == "degrade" else "least-popular-with-image" if shows else "random:1"
    made = Scenario(
        dataset="longtail-small",
        model=model,
        attack=attack,
        defense=defense,
        malicious_ratio=0.0 if attack == "none" else 0.05,
        protocol=protocol,
        target=target,
        model_params=PARAMS.get(model, {}),
        attack_params=PARAMS.get(attack, {}),
        defense_params={"scope": scope} if scope else PARAMS.get(defense, {}),
        protocol_params={**SETTINGS[protocol, model], **({"subgroup": 2} if attack == "subgroup-spattack" else {})},
    )
    try:
        _ = made.id
    except UserError:
        return None
    return made


def first(attack: str, defense: str) -> str | None:
    """The first case of these two that there is; ``*`` as the attack: that under which defenses are counted."""
    names = (f"{p}/{m}/{AGAINST[p] if attack == '*' else attack}/{defense}" for p, m in SETTINGS)
    return next((name for name in names if scenario(name) is not None), None)


ITEM_RULES = [
    f"icde24/mf/none/{name}@item" for name in DEFENSES.names() if "scope" in DEFENSES.get(name).Params.model_fields
]
ITEM_RULES.remove("icde24/mf/none/norm-bound@item")  # whose scopes are others


@functools.cache
def cases() -> list[str]:
    """Every protocol and model clean, every attack without a defense, every defense under one attack, and rules by item."""
    found = [f"{p}/{m}/none/none" for p, m in SETTINGS]
    found += [name for attack in ATTACKS.names() if (name := first(attack, "none"))]
    found += [name for defense in DEFENSES.names() if (name := first("*", defense))]
    return sorted({*found, *ITEM_RULES})


def every_case(protocol: str, model: str) -> Iterator[str]:
    """All that go together: on mf of ICDE'24 every attack with every defense, elsewhere each with one of the others."""
    for attack, defense in itertools.product(ATTACKS.names(), DEFENSES.names()):
        if (protocol, model) == ("icde24", "mf") or defense == "none" or attack == AGAINST[protocol]:
            name = f"{protocol}/{model}/{attack}/{defense}"
            if scenario(name) is not None:
                yield name


_SPLITS: dict[tuple[str, str], Split] = {}


def count(name: str, places: bool = False) -> Seen:
    """What happens on the stand-in device in the counted rounds of a case, all together."""
    made = scenario(name)
    assert made is not None, name
    resolved = made.resolved
    protocol = resolved.protocol
    kind = protocol.split, protocol.duplicates
    if kind not in _SPLITS:
        _SPLITS[kind] = split_of(made, 0)
    with StandInDevice(places) as device:
        federation = Federation(
            task_of(made, _SPLITS[kind], device.device),
            resolved.model,
            resolved.attack(),
            resolved.defense(),
            made.malicious_ratio,
            protocol,
            0,
            device.device,
        )
        cohorts = federation.population.cohorts

        def few(epoch: int) -> Iterator[Cohort]:
            for number, cohort in enumerate(itertools.islice(cohorts(epoch), 1 + ROUNDS)):
                if number == 1:
                    device.counted()
                yield cohort

        federation.population.cohorts = few  # type: ignore[method-assign]
        federation.train_epoch()
        assert federation.round == 1 + ROUNDS, name
        return device.counted()


def main(names: list[str]) -> None:
    """Print some cases by place, or rewrite the table."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    for name in names:
        seen = count(name, places=True)
        print(f"{name}: {seen.launches / ROUNDS:g} launches and {seen.syncs / ROUNDS:g} waits a round")
        for (place, what), number in seen.waits.most_common():
            print(f"  {number / ROUNDS:g} waits at {place}: {what}")
        for place, number in seen.launched_at.most_common(30):
            print(f"  {number / ROUNDS:g} launches at {place}")
    if names:
        return
    rows, places = {}, Counter[str]()
    for name in cases():
        seen = count(name)
        places.update({f"{waits[0]}: {waits[1]} ({name})": number for waits, number in seen.waits.items()})
        rows[name] = [seen.launches / ROUNDS, seen.syncs / ROUNDS]
        print(name, *rows[name], flush=True)
    print(*sorted(places), sep="\n")
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    TABLE.write_text(f'{{\n  "torch": {json.dumps(torch.__version__.split("+")[0])},\n{lines}\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
