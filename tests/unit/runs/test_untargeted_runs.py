"""Whole runs of protocol aaai23 on the embedded data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch

import fedbench
from fedbench.attacks import ATTACKS
from fedbench.entries.cards import Goal
from fedbench.errors import UserError
from fedbench.models import MODELS as REGISTRY
from fedbench.models import PublicParams
from fedbench.runs.record import RunRecord
from fedbench.scenarios.scenario import Scenario

SMALL = {"clients_per_round": 20, "rounds_per_epoch": 4, "epochs": 2}
MODELS: dict[str, dict[str, Any]] = {
    "mf": {"embedding_size": 8},
    "sasrec": {"embedding_size": 8, "max_length": 20, "blocks": 1},
}
DEGRADING = [name for name in ATTACKS.names() if ATTACKS.get(name).card.goal == Goal.DEGRADE]


def run(
    model: str, attack: str = "none", defense: str = "none", protocol: dict[str, Any] | None = None, **more: Any
) -> RunRecord:
    scenario = Scenario(
        "longtail-small",
        model,
        attack,
        defense,
        0.0 if attack == "none" else 0.04,
        "aaai23",
        "none",
        model_params=MODELS[model],
        protocol_params=SMALL | (protocol or {}),
        **more,
    )
    record = fedbench.run(scenario, 0)
    assert record.status == "ok", record.error
    return record


@functools.cache
def undefended(model: str) -> RunRecord:
    return run(model, "cluster-attack")


@pytest.mark.parametrize("model", MODELS)
def test_a_run_measures_test_and_validation_items_and_no_exposure(model: str) -> None:
    record = run(model)
    assert record.rounds == 8
    assert record.target_items == []
    assert len(record.curve) == 2
    for point in record.curve:
        assert {"hr_full_5", "ndcg_full_5", "val_hr_full_5", "val_ndcg_full_5"} <= set(point)
        assert not any(name.startswith("er_") for name in point)
    best = max(record.curve, key=lambda point: point["val_hr_full_5"])
    assert record.metrics["best_epoch"] == best["epoch"]
    assert record.metrics["hr_full_5_best"] == best["hr_full_5"]
    assert record.metrics["hr_full_5"] == record.curve[-1]["hr_full_5"]
    assert record.metrics["er_10"] is None


def test_scores_are_made_once_for_both_parts_unless_the_model_reads_what_was_seen_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = dict.fromkeys(MODELS, 0)

    def counted(name: str, score_all: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def counting(self: Any, params: PublicParams, users: torch.Tensor) -> torch.Tensor:
            made[name] += len(users)
            return score_all(self, params, users)

        return counting

    for model in made:
        cls = REGISTRY.get(model)
        monkeypatch.setattr(cls, "score_all", counted(model, cls.score_all))
        run(model)
    assert made["sasrec"] == 2 * made["mf"] > 0


def test_training_teaches_something() -> None:
    longer = Scenario("longtail-small", "mf", protocol="aaai23", target="none", protocol_params=SMALL | {"epochs": 60})
    curve = fedbench.run(longer, 0).curve
    assert curve[-1]["hr_full_20"] > 2 * 20 / 400
    assert curve[-1]["hr_full_20"] > curve[0]["hr_full_20"]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("attack", DEGRADING)
def test_every_attack_that_degrades_runs_and_changes_something(model: str, attack: str) -> None:
    """Beside the same run before the attack starts, in which its clients upload honestly."""
    if ATTACKS.get(attack).card.invents_users and model == "sasrec":
        with pytest.raises(UserError, match="which has no embeddings of users"):
            run(model, attack)
        return
    attacked, before = run(model, attack), run(model, attack, protocol={"attack_start": SMALL["epochs"]})
    assert attacked.attack_goal == before.attack_goal == "degrade"
    assert attacked.num_malicious == before.num_malicious == 12
    assert attacked.curve[0] != before.curve[0]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("defense", "params"),
    [
        ("norm-bound", {"bound": 0.01}),
        ("norm-bound", {"scope": "row", "bound": 0.01}),
        ("median", {}),
        ("trimmed-mean", {}),
        ("krum", {}),
        ("multi-krum", {}),
        ("multi-krum", {"scope": "item"}),
        ("bulyan", {}),
        ("rfa", {}),
        ("foolsgold", {}),
        ("dnc", {}),
        ("flame", {}),
        ("hics", {}),
        ("fl-wbc", {"scale": 0.001}),
        ("union", {"distance": "squared", "negatives_per": "client", "dropout": 0.0, "order": "sequential"}),
        ("union+multi-krum", {}),
        ("union+norm-bound", {}),
        ("nnm+median", {}),
        ("bucketing+krum", {}),
    ],
)
def test_every_defense_runs(model: str, defense: str, params: dict[str, Any]) -> None:
    defended = run(model, "cluster-attack", defense, defense_params=params)
    assert defended.curve != undefended(model).curve


def test_attacks_that_promote_need_targets() -> None:
    scenario = Scenario("longtail-small", "mf", "pieck-ipe", malicious_ratio=0.05, protocol="aaai23", target="none")
    with pytest.raises(UserError, match=r"attack 'pieck-ipe' needs target items, but target = 'none'"):
        _ = scenario.id


def test_the_papers_readings_are_defaults_of_the_protocol() -> None:
    plain = Scenario("ml-1m", "mf", "cluster-attack", "union+norm-bound", 0.01, "aaai23", "none")
    (_, union), (_, bound) = plain.resolved.defenses
    assert (union.step, union.distance, union.dropout, union.order) == ("server", "euclidean", 0.2, "parallel")
    assert (bound.scope, bound.bound) == ("client", 0.1)
    (_, of_sasrec) = Scenario(
        "ml-1m", "sasrec", defense="norm-bound", protocol="aaai23", target="none"
    ).resolved.defenses[0]
    assert of_sasrec.bound == 1.5
    stated = {"union": {"step": "server", "distance": "euclidean", "dropout": 0.2, "order": "parallel"}}
    stated["norm-bound"] = {"scope": "client", "bound": 0.1}  # type: ignore[dict-item]
    assert (
        Scenario("ml-1m", "mf", "cluster-attack", "union+norm-bound", 0.01, "aaai23", "none", defense_params=stated).id
        == plain.id
    )
    (_, elsewhere) = Scenario("ml-1m", "mf", "pieck-ipe", "multi-krum", 0.01).resolved.defenses[0]
    assert elsewhere.scope == "item"


def test_local_batches_of_pairs_are_refused() -> None:
    scenario = Scenario("longtail-small", "mf", protocol="wsdm22", protocol_params={"loss": "bpr"})
    with pytest.raises(UserError, match="local_batch samples rows"):
        _ = scenario.id


def test_what_cannot_run_is_refused_before_anything_runs() -> None:
    crowded = Scenario("longtail-small", "mf", "fang", malicious_ratio=0.2, protocol="aaai23", target="none")
    with pytest.raises(UserError, match=r"malicious_ratio = 0.2 is more than malicious_pool = 0.05"):
        _ = crowded.id
    pointwise = Scenario("longtail-small", "sasrec", protocol="icde24")
    with pytest.raises(UserError, match=r"trains on pairs, but protocol 'icde24' has loss = 'bce'"):
        _ = pointwise.id
