"""A defense in a process of its own computes what it computes in this one, and what it returns is checked."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedbench.defenses import DEFENSES
from fedbench.errors import UserError
from fedbench.isolation.entries import isolated_class
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import close
from fedbench.runs.record import RunRecord
from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

HEAD = """
import os
from dataclasses import replace
from pathlib import Path
import torch
from fedbench import ClientRegularization, Defense, DefenseCard, DefenseFamily, NoParameters

class Trick(Defense):
    card = DefenseCard("trick", "A trick", "none", DefenseFamily.CLIPPING)

    class Params(NoParameters):
        pass
"""

TRICKS = {
    "exits": ("def filter(self, updates, server): os._exit(0)", "its process ended by itself (exit code 0)"),
    "reads a file": ("def filter(self, updates, server): Path('/etc/passwd').read_text()", "PermissionError"),
    "moves rows to items that are not": (
        "def filter(self, u, server): return replace(u, rows=tuple(r.reassigned(r.item + 10**6) for r in u.rows))",
        "must be within 0 to",
    ),
    "moves rows to clients that are not": (
        "def filter(self, u, server): return replace(u, rows=tuple(r.renumbered(r.client - 1) for r in u.rows))",
        "-1 to ",
    ),
    "makes up clients": (
        "def filter(self, u, server): return replace(u, clients=u.clients + 10**6)",
        "some twice, or that were not there",
    ),
    "returns another type": ("def filter(self, u, server): return replace(u, weights=u.weights.double())", "float64"),
    "returns no gradient": ("def aggregate(self, updates, server): return 3", "no PublicParams"),
    "returns a small gradient": (
        "def aggregate(self, u, server): return replace(server.params, items=server.params.items[:-1])",
        "aggregate(): items that the server refuses",
    ),
    "forgets parameters": (
        "def aggregate(self, u, server): return replace(server.params, dense={})",
        "other names than W1",
    ),
    "regularizes other rows": (
        "def regularize(self, params, users, batch, s): return ClientRegularization(users=users[1:])",
        "regularize(): users that the server refuses",
    ),
    "sends rows of a client that is not": (
        "def client_update(self, local, params, users, batch, server):\n"
        "        return replace(local, rows=tuple(r.renumbered(r.client + 10**6) for r in local.rows))",
        "must be within 0 to",
    ),
    "steps": ("def filter(self, u, server): server.optimizer.step(server.params, server.params)", "it does not step"),
}


@pytest.fixture(autouse=True, scope="module")
def _no_processes_left() -> Iterator[None]:
    yield
    close()


def defended(source: str, model: str, **protocol: Any) -> RunRecord:
    content = source.encode()
    sha256 = hashlib.sha256(content).hexdigest()
    cls = isolated_class(Path("trick.py"), content, sha256, Limits(seconds=30), "defense")
    with DEFENSES.lent(cls.card.name, cls):
        return run(scenario(cls.card.name, model, **protocol), 0)


def scenario(defense: str, model: str, **protocol: Any) -> Scenario:
    params = {"epochs": 2, **protocol}
    return Scenario("longtail-small", model, "explicit-boost", defense, 0.05, protocol_params=params)


def source_of(name: str) -> str:
    return inspect.getsource(inspect.getmodule(DEFENSES.get(name)) or object)


def as_a_stranger(name: str, model: str, **protocol: Any) -> RunRecord:
    """The same run in this process, by a class that does not come with fedbench: it sees no sender of an upload."""
    cls = DEFENSES.get(name)
    with DEFENSES.lent(name, type(cls.__name__, (cls,), {"__module__": __name__})):
        return run(scenario(name, model, **protocol), 0)


@pytest.mark.parametrize("trick", TRICKS)
def test_what_an_isolated_defense_cannot_do(trick: str) -> None:
    code, reason = TRICKS[trick]
    record = defended(f"{HEAD}\n    {code}\n", "ncf", epochs=1)
    assert record.status == "failed"
    assert reason in (record.error or "")


@pytest.mark.parametrize(
    ("name", "model"),
    [("norm-bound", "mf"), ("dnc", "mf"), ("pieck-regularizer", "mf"), ("fl-wbc", "ncf"), ("guardcq", "ncf")],
)
def test_the_same_record_as_in_this_process(name: str, model: str) -> None:
    """Filters, rules, regularizers and noise of clients, with draws of their own."""
    there, here = defended(source_of(name), model), as_a_stranger(name, model)
    assert there.status == "ok"
    for field in ("metrics", "curve", "defense_knowledge", "defense_params", "scenario_id", "rounds", "warnings"):
        assert getattr(there, field) == getattr(here, field), field
    assert there.isolation.startswith("sandbox:") or there.isolation == "process"
    assert here.isolation == "none"


def test_it_may_leave_out_nearly_everybody() -> None:
    """Vectors of rows that are left out come back, too."""
    code = "def filter(self, u, server): return u.keep(torch.arange(len(u.clients)) < 1)"
    assert defended(f"{HEAD}\n    {code}\n", "mf", epochs=1, loss="bpr").status == "ok"


def test_nobody_simulates_it() -> None:
    content = f"{HEAD}\n    on_flag = 'drop'\n".encode()
    cls = isolated_class(Path("trick.py"), content, hashlib.sha256(content).hexdigest(), Limits(seconds=30), "defense")
    told = Scenario("longtail-small", "mf", "adaptive", "trick", 0.05, protocol_params={"epochs": 1})
    with (
        DEFENSES.lent("trick", cls),
        pytest.raises(UserError, match="defense 'trick' lives in a process of its own, so that no attack can simulate"),
    ):
        run(told, 0)


def test_it_may_ask_how_the_server_would_step() -> None:
    short = {"loss": "bpr", "server_optimizer": "adam", "clients_per_round": 40, "rounds_per_epoch": 2, "epochs": 1}
    there, here = defended(source_of("union"), "mf", **short), as_a_stranger("union", "mf", **short)
    assert there.status == here.status == "ok"
    assert there.curve == here.curve
