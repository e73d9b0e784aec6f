"""``fedbench vision snapshot``: image attacks tried on many targets at one moment of training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.output import console
from fedbench.cli.tried import print_tried


def snapshot(
    dataset: Annotated[str, typer.Argument(help="A dataset with images, such as ml-1m or longtail-small.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the rows go, as parquet; rows that are there stay.")],
    model: Annotated[str, typer.Option(help="A model that looks at images.")] = "vncf",
    model_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from its defaults.")] = "{}",
    attack: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE|NAME",
            help="An image attack; several are tried one after the other. Of psmu-pp only the image, without gradients.",
        ),
    ] = None,
    eps: Annotated[
        list[float] | None, typer.Option(help="Its bound, in steps of 8-bit pixels; several: one by one.")
    ] = None,
    defense: Annotated[
        list[str] | None, typer.Option(metavar="FILE|NAME", help="A purifier; several: one by one.")
    ] = None,
    epoch: Annotated[list[int] | None, typer.Option(help="After which epochs to stop and try.")] = None,
    targets: Annotated[int, typer.Option(help="As many of the least popular items, and of the most popular.")] = 10,
    seed: Annotated[list[int] | None, typer.Option(help="Of the run; several: one by one.")] = None,
    defense_params: Annotated[
        str, typer.Option(metavar="JSON", help="What differs from the defaults, of every --defense.")
    ] = "{}",
    protocol_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from protocol tois.")] = "{}",
    attack_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from the attacks' defaults.")] = "{}",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train without an attack, stop after some epochs, and try image attacks on many targets, cold and popular.

    Every attack shows one image of one target; ER@5 is measured at once. What FILE has already is not tried again: only
    epochs, attacks and targets that it lacks. A row of psmu-pp is its image alone: its gradients need rounds of training.
    """
    import pyarrow as pa

    from fedbench.inspection.snapshot import Try, check, snapshots
    from fedbench.inspection.tried import rows_of
    from fedbench.runs.results import write_whole
    from fedbench.scenarios.given import entry_name
    from fedbench.scenarios.scenario import Scenario

    tries = [
        Try(entry_name(name, "attack"), {"eps": bound, **_table(attack_params, "--attack-params")})
        for name in attack or ["psmu-v"]
        for bound in eps or [4.0]
    ]
    scenarios = [
        Scenario(
            dataset,
            model,
            defense=entry_name(name, "defense"),
            protocol="tois",
            target="least-popular-with-image",
            model_params=_table(model_params, "--model-params"),
            defense_params=_table(defense_params, "--defense-params"),
            protocol_params=_table(protocol_params, "--protocol-params"),
        )
        for name in defense or ["none"]
    ]
    past = rows_of(out) if out.exists() else []
    done = {_key(row): {"defense_params": "{}", **row} for row in past}
    for scenario in scenarios:
        check(scenario)  # what is wrong with one is said before the first is trained
    for each, scenario in itertools.product(seed or [0], scenarios):
        facts = _facts(scenario, each)

        def known(stop: int, one: Try, item: int, facts: dict[str, Any] = facts) -> dict[str, Any] | None:
            made = {**facts, "epoch": stop, "attack": one.attack, "attack_params": _json(one.params), "item": item}
            return done.get(_key(made))

        told = _tell(f"{dataset} {model} {scenario.defense} seed {each}")
        for rows in snapshots(
            scenario, each, sorted({*(epoch or [8])}), tries, targets, device=device, progress=told, known=known
        ):
            for row in rows:
                if not isinstance(row["attack_params"], str):
                    row["attack_params"] = _json(row["attack_params"])
                done[_key({**facts, **row})] = {**facts, **row}
            write_whole(pa.Table.from_pylist([*done.values()]), out)
    console(err=True).print(f"written to {out}", soft_wrap=True)
    print_tried([*done.values()])


def _facts(scenario: Any, seed: int) -> dict[str, Any]:
    params = scenario.resolved.model.params
    return {
        "scenario_id": scenario.id,
        "scenario_json": scenario.key,
        "dataset": scenario.dataset,
        "model": scenario.model,
        "extractor": params.extractor,
        "defense": scenario.defense,
        "defense_params": _json(scenario.defense_params),
        "seed": seed,
    }


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What was tried, by which a row is told from others."""
    return tuple(row[name] for name in ("scenario_id", "seed", "epoch", "attack", "attack_params", "item"))


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)


def _table(text: str, option: str) -> dict[str, Any]:
    from fedbench.errors import UserError

    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UserError(f'{option} {text!r} must be JSON such as {{"steps": 40}}.')
    return value


def _tell(what: str) -> Any:
    err = console(err=True)
    return (lambda text: err.print(f"{what}: {text}", end="\r")) if err.is_terminal else (lambda text: None)
