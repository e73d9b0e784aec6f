"""Presets of protocols, field by field where a paper says so."""

from __future__ import annotations

from typing import Any

import pytest

from fedbench.errors import UserError
from fedbench.federation.protocol import Protocol
from fedbench.models import MODELS
from fedbench.scenarios import protocols


def test_every_preset_has_a_title_and_parameters_of_methods() -> None:
    assert set(protocols.names()) == set(protocols.TITLES)
    for name in protocols.names():
        assert isinstance(protocols.method_presets(name), tuple)


def test_tois_is_as_its_paper_has_it_and_otherwise_the_default() -> None:
    said: dict[str, Any] = {
        "split": "4:1",
        "negatives_per_positive": 4,
        "learning_rate": 1e-3,
        "epochs": 30,
        "attack_start": 8,
        "ranking": "full",
        "evaluate_every": 1,
    }
    made = protocols.preset("tois", "vncf", "longtail-1m")
    assert made == Protocol(**said)
    assert protocols.preset("tois", "vncf", "ml-1m") == Protocol(**(said | {"split": "published-ijcai22"}))
    kept = (made.negatives, made.clients_per_round, made.schedule, made.aggregation, made.server_optimizer)
    assert kept == ("once", 256, "shuffled", "sum", "sgd")
    assert (made.loss, made.reduction, made.malicious_clients) == ("bce", "mean", "injected")


@pytest.mark.parametrize("name", ["ncf", "vncf", "lightgcn", "lightvgcn"])
def test_all_models_of_tois_have_the_same_sizes(name: str) -> None:
    cls = MODELS.get(name)
    params = cls.Params(**protocols.method_preset("tois", "model", name, name, "ml-1m")).model_dump()
    assert (params["embedding_size"], params["hidden"]) == (32, (32, 16))


def test_a_rate_of_the_clients_is_one_number_or_two_in_order() -> None:
    assert protocols.preset("icde24", "mf", "ml-100k").client_learning_rate is None
    assert protocols.preset("icde24", "mf", "ml-100k", {"client_learning_rate": [0.01, 1]}).client_learning_rate == (
        0.01,
        1,
    )
    with pytest.raises(UserError, match="the lower of the two comes first"):
        protocols.preset("icde24", "mf", "ml-100k", {"client_learning_rate": [1, 0.01]})
    with pytest.raises(UserError, match="Adam moves all private embeddings at one rate"):
        protocols.preset("aaai23", "mf", "ml-1m", {"client_learning_rate": [0.01, 1]})


def test_ccs24_is_as_its_code_has_it_and_otherwise_the_default() -> None:
    said: dict[str, Any] = {
        "split": "leave-one-out-random",
        "negatives_exclude": "all",
        "learning_rate": 0.005,
        "clients_per_round": 16,
        "epochs": 36,
        "aggregation": "weighted",
        "malicious_clients": "compromised",
        "ranking": "full",
        "evaluate_every": 4,
    }
    assert protocols.preset("ccs24", "ncf", "ml-1m") == Protocol(**said)
    sizes = protocols.method_preset("ccs24", "model", "ncf", "ncf", "ml-1m")
    assert sizes == {"embedding_size": 16, "hidden": [64, 32, 16, 8]}
