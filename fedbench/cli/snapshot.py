"""``fedbench vision snapshot``: image attacks tried on many targets at one moment of training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbench.cli.output import console


def snapshot(
    dataset: Annotated[str, typer.Argument(help="A dataset with images, such as ml-1m or longtail-small.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the rows go, as parquet; rows that are there stay.")],
    model: Annotated[str, typer.Option(help="A model that looks at images.")] = "vncf",
    model_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from its defaults.")] = "{}",
    attack: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="An image attack; several are tried one after the other.")
    ] = None,
    eps: Annotated[
        list[float] | None, typer.Option(help="Its bound, in steps of 8-bit pixels; several: one by one.")
    ] = None,
    defense: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A purifier; several: one by one.")] = None,
    epoch: Annotated[list[int] | None, typer.Option(help="After which epochs to stop and try.")] = None,
    targets: Annotated[int, typer.Option(help="As many of the least popular items, and of the most popular.")] = 10,
    seed: Annotated[list[int] | None, typer.Option(help="Of the run; several: one by one.")] = None,
    protocol_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from protocol tois.")] = "{}",
    attack_params: Annotated[str, typer.Option(metavar="JSON", help="What differs from the attacks' defaults.")] = "{}",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Train without an attack, stop after some epochs, and try image attacks on many targets, cold and popular.

    Every attack shows one image of one target; ER@5 is measured at once. What was tried before is not tried again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from fedbench.inspection.snapshot import Try, snapshots
    from fedbench.runs.results import write_whole
    from fedbench.scenarios.scenario import Scenario

    tries = [
        Try(name, {"eps": bound, **_table(attack_params, "--attack-params")})
        for name in attack or ["psmu-v"]
        for bound in eps or [4]
    ]
    done: list[dict[str, Any]] = pq.read_table(out).to_pylist() if out.is_file() else []
    stops = sorted(epoch or [8])
    for each in seed or [0]:
        for name in defense or ["none"]:
            scenario = Scenario(
                dataset,
                model,
                defense=name,
                protocol="tois",
                target="least-popular-with-image",
                model_params=_table(model_params, "--model-params"),
                protocol_params=_table(protocol_params, "--protocol-params"),
            )
            known = {
                (row["scenario_id"], row["seed"], row["epoch"], row["attack"], row["attack_params"]) for row in done
            }
            left = [
                one
                for one in tries
                if not all((scenario.id, each, stop, one.attack, json.dumps(one.params)) in known for stop in stops)
            ]
            if not left:
                continue
            told = f"{dataset} {model} {name} seed {each}"
            for rows in snapshots(scenario, each, stops, left, targets, device=device, progress=_tell(told)):
                for row in rows:
                    row["attack_params"] = json.dumps(row["attack_params"])
                    done.append({**_facts(scenario, each), **row})
                write_whole(pa.Table.from_pylist(done), out)
    console(err=True).print(f"written to {out}", soft_wrap=True)
    _print(done)


def _facts(scenario: Any, seed: int) -> dict[str, Any]:
    params = scenario.resolved.model.params
    return {
        "scenario_id": scenario.id,
        "scenario_json": scenario.key,
        "dataset": scenario.dataset,
        "model": scenario.model,
        "extractor": params.extractor,
        "defense": scenario.defense,
        "seed": seed,
    }


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


def _print(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    headings = (
        "model",
        "defense",
        "epoch",
        "attack",
        "eps",
        "targets",
        "ER@5 before",
        "ER@5",
        "cosine",
        "similarity",
        "clean",
    )
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("model", "defense", "attack", "targets") else "right")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        eps = json.loads(row["attack_params"]).get("eps")
        key = (row["model"], row["defense"], row["epoch"], row["attack"], eps, row["group"])
        groups.setdefault(key, []).append(row)
    for key, found in groups.items():
        means = [
            sum(row[name] for row in found) / len(found)
            for name in ("er_5_before", "er_5", "cosine", "similarity", "clean_similarity_mean")
        ]
        model, defense, epoch, attack, eps, group = key
        table.add_row(
            model,
            defense,
            str(epoch),
            attack,
            f"{eps:g}",
            f"{len(found)} {group}",
            *(f"{value:.3f}" for value in means),
        )
    console().print(table)
