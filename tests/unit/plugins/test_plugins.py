"""Entries of single files: what is loaded, under which name, and what each mistake is called."""

from __future__ import annotations

import hashlib
import multiprocessing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import plugin_files
import pyarrow.parquet as pq
import pytest

from fedbench import plugins
from fedbench.attacks import ATTACKS
from fedbench.data import load_split, resolve
from fedbench.entries import registry
from fedbench.errors import UserError
from fedbench.plugins.files import LARGEST
from fedbench.runs.execution import run_suite
from fedbench.runs.identity import source_hash
from fedbench.runs.worker import Order, Ready, Refused, work
from fedbench.scenarios.scenario import Scenario
from fedbench.scenarios.suite import Planned


@pytest.fixture
def attack_file(tmp_path: Path) -> Path:
    path = tmp_path / "my_attack.py"
    path.write_text(plugin_files.ATTACK)
    return path


def test_a_file_becomes_an_entry(attack_file: Path) -> None:
    loaded = plugins.load_file(attack_file)
    assert (loaded.kind, loaded.name, loaded.path) == ("attack", "random-direction", attack_file)
    assert loaded.source == attack_file.read_bytes()
    assert loaded.sha256 == hashlib.sha256(loaded.source).hexdigest()
    assert ATTACKS.get("random-direction") is loaded.cls
    assert ATTACKS.origin("random-direction") == "my_attack.py:15"
    assert (
        Scenario("longtail-small", "mf", "random-direction", malicious_ratio=0.05).resolved.attack_params.strength
        == 0.1
    )
    assert not list(attack_file.parent.glob("__pycache__"))


def test_a_name_without_its_ending_points_to_the_file(attack_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(attack_file.parent)
    for text in ("my_attack", "my-attack"):
        with pytest.raises(UserError, match=rf"Unknown attack '{text}'. A file ends on .py: write ./my_attack.py."):
            plugins.named(text, "attack")
    assert plugins.named("a-hum", "attack") == "a-hum"


def test_the_same_content_again_is_the_same_entry(attack_file: Path, tmp_path: Path) -> None:
    first = plugins.load_file(attack_file)
    assert plugins.load_file(attack_file, "attack").cls is first.cls
    copy = tmp_path / "copy.py"
    copy.write_bytes(attack_file.read_bytes())
    assert plugins.load_file(copy).cls is first.cls


def test_the_hash_of_the_source_is_of_what_was_loaded_wherever_it_lies(attack_file: Path) -> None:
    loaded = plugins.load_file(attack_file)
    before = source_hash(loaded.cls)
    attack_file.write_text(plugin_files.ATTACK.replace("0.1", "0.2"))
    assert source_hash(loaded.cls) == before
    plugins.forget()
    assert source_hash(plugins.load_file(attack_file).cls) != before
    plugins.forget()
    elsewhere = attack_file.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other_name.py").write_text(plugin_files.ATTACK)
    assert source_hash(plugins.load_file(elsewhere / "other_name.py").cls) == before


BAD = {
    "syntax": ("class X(:\n", r"my_attack\.py:1: not valid Python"),
    "not text": ("\0", r"cannot be imported|not valid Python"),
    "nothing": ("x = 1\n", "defines no class derived from Attack or Defense or Recommender or Dataset"),
    "import": (
        "import no_such_module_at_all\n",
        r"my_attack\.py:1: cannot be imported: ModuleNotFoundError.*installed",
    ),
    "raises": ("x = 1\nraise ValueError('no')\n", r"my_attack\.py:2: cannot be imported: ValueError: no\."),
    "exits": ("import sys\nsys.exit(0)\n", r"my_attack\.py:2: cannot be imported: SystemExit"),
    "imported class only": (
        "from fedbench.attacks.label_flip import LabelFlip\n",
        "defines no class derived from",
    ),
    "two": (
        plugin_files.ATTACK + "\n\nclass Other(Attack):\n    card = RandomDirection.card\n",
        r"2 entries: RandomDirection \(attack\), Other \(attack\)",
    ),
    "no card": ("from fedbench.attacks import Attack\n\nclass X(Attack):\n    pass\n", "class X has no card"),
    "inherited card": (
        "from fedbench.attacks.label_flip import LabelFlip\n\nclass X(LabelFlip):\n    pass\n",
        "class X has no card",
    ),
    "wrong card": ("from fedbench.attacks import Attack\n\nclass X(Attack):\n    card = {}\n", "card is dict"),
    "long name": (plugin_files.ATTACK.replace("random-direction", "x" * 65), "of at most 64 characters"),
    "bad name": (plugin_files.ATTACK.replace("random-direction", "Random/X"), "name = 'Random/X' must be lower-case"),
    "bad goal": (plugin_files.ATTACK.replace("Goal.PROMOTE", "'up'"), "goal = 'up' must be a Goal"),
    "bad knowledge": (
        plugin_files.ATTACK.replace("paper=", "knowledge=frozenset({'all'}), paper="),
        "knowledge = .* must be a frozenset of Knowledge",
    ),
    "bad models": (
        plugin_files.ATTACK.replace("paper=", "models=frozenset({'mff'}), paper="),
        "models = .* must be None",
    ),
    "bad version": (plugin_files.ATTACK.replace("paper=", "version='2', paper="), "version = '2' must be a whole"),
    "taken": (
        plugin_files.ATTACK.replace("random-direction", "label-flip"),
        r"'label-flip' on the card is taken by the attack that comes with fedbench \(.*label_flip\.py:\d+\)",
    ),
    "bad params": (
        plugin_files.ATTACK.replace("class Params(Parameters)", "class Params"),
        "Params must be a subclass of fedbench.Parameters",
    ),
    "abstract": (
        "from fedbench.entries.cards import ModelCard\nfrom fedbench.models import Recommender\n\n"
        "class X(Recommender):\n    card = ModelCard('x', 'X', 'none')\n",
        r"lacks the method embedding_size\(\); every model has",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_every_mistake_is_one_line(case: str, tmp_path: Path) -> None:
    source, message = BAD[case]
    path = tmp_path / "my_attack.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message) as caught:
        plugins.load_file(path)
    assert "\n" not in str(caught.value)
    assert "my_attack.py" in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        plugins.load_file(tmp_path / "no.py")
    with pytest.raises(UserError, match="is no file"):
        plugins.load_file(tmp_path)
    large = tmp_path / "large.py"
    large.write_bytes(b"#" * (LARGEST + 1))
    with pytest.raises(UserError, match="at most 1,048,576"):
        plugins.load_file(large)


def test_another_kind_than_asked_for(attack_file: Path) -> None:
    with pytest.raises(UserError, match=r"no class derived from Defense\. Class RandomDirection is an attack"):
        plugins.load_file(attack_file, "defense")


def test_another_content_under_a_name_that_was_loaded(attack_file: Path, tmp_path: Path) -> None:
    plugins.load_file(attack_file)
    other = tmp_path / "other.py"
    other.write_text(plugin_files.ATTACK.replace("0.1", "0.2"))
    with pytest.raises(UserError, match=r"was loaded from .*my_attack\.py with another content"):
        plugins.load_file(other)


def test_a_helper_class_of_the_file_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "my_attack.py"
    path.write_text(
        plugin_files.ATTACK.replace("(Attack)", "(Helper)").replace(
            "class R", "class Helper(Attack):\n    pass\n\n\nclass R", 1
        )
    )
    assert plugins.load_file(path).cls.__name__ == "RandomDirection"


def test_names_are_taken_as_they_are(attack_file: Path) -> None:
    assert plugins.named("label-flip", "attack") == "label-flip"
    assert plugins.named(str(attack_file), "attack") == "random-direction"
    with pytest.raises(UserError, match="Unknown attack 'label-flop'"):
        plugins.named("label-flop", "attack")


def test_a_dataset_of_a_file_is_split_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "ring.py"
    path.write_text(plugin_files.DATASET)
    assert plugins.load_file(path).kind == "dataset"
    assert resolve("ring").title == "A ring"
    split = load_split("ring", "leave-one-out")
    assert (split.num_users, split.num_items, len(split.train), len(split.test)) == (40, 50, 280, 40)
    path.write_text(plugin_files.DATASET.replace('"ring"', '"ml-100k"'))
    with pytest.raises(UserError, match="'ml-100k' on the card is taken"):
        plugins.load_file(path)


SCENARIO = {
    "dataset": "longtail-small",
    "model": "mf",
    "attack": "random-direction",
    "malicious_ratio": 0.05,
    "protocol_params": {"epochs": 1},
}


def test_workers_load_the_file_too(attack_file: Path, tmp_path: Path) -> None:
    loaded = plugins.load_file(attack_file)
    summary = run_suite([Planned(Scenario(**SCENARIO), (0,))], results=tmp_path / "results", jobs=1)
    assert summary.count("ok") == 1
    (record,) = pq.read_table(tmp_path / "results").to_pylist()
    assert record["attack"] == "random-direction"
    assert record["attack_source_hash"] == source_hash(loaded.cls)


def test_a_worker_refuses_another_content(attack_file: Path, tmp_path: Path) -> None:
    plugins.load_file(attack_file)
    order = Order("x-s0", Scenario(**SCENARIO).key, 0, None, "cpu", tmp_path / "results", files=plugins.given())
    attack_file.write_text(plugin_files.ATTACK.replace("0.1", "0.2"))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=work, args=(theirs, 1), daemon=True)
    process.start()
    assert isinstance(ours.recv(), Ready)
    ours.send(order)
    message = ours.recv()
    ours.send(None)
    process.join()
    assert isinstance(message, Refused)
    assert message.fatal
    assert "my_attack.py has changed since this command began" in message.error
    assert not (tmp_path / "results").exists()


def test_a_name_that_is_lent_first_is_no_loss_for_the_plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged, lent = ATTACKS.get("a-ra"), ATTACKS.get("a-hum")
    point = SimpleNamespace(dist=SimpleNamespace(name="pack"), name="mine", load=lambda: plugged)
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: [point])
    names: registry.Registry[Any] = registry.Registry(
        "attack", "fedbench.federation.attack:Attack", {}, "fedbench.attacks"
    )
    with names.lent("pack/mine", lent):
        assert names.get("pack/mine") is lent
    assert names.get("pack/mine") is plugged
    assert names.failed == {}
