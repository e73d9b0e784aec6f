"""An attack in a process of its own computes what it computes in this one, and can do nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from entry_source import source_of

from fedbench.attacks import ATTACKS
from fedbench.errors import FedbenchError, UserError
from fedbench.isolation import nursery
from fedbench.isolation.entries import isolated_class
from fedbench.isolation.limits import Limits
from fedbench.isolation.nursery import close
from fedbench.runs.record import RunRecord
from fedbench.runs.run import run
from fedbench.scenarios.scenario import Scenario

HEAD = """
import os, signal, socket, subprocess, sys, threading, gc
from pathlib import Path
import torch
import fedbench
from fedbench import Attack, AttackCard, Channel, Goal, Knowledge, NoParameters, Updates, no_updates, target_updates
"""
BODY = '''
class Trick(Attack):
    """Nothing that is written down."""
    card = AttackCard("trick", "A trick", "none", Goal.PROMOTE, Channel.GRADIENT)

    class Params(NoParameters):
        """None."""

    def craft(self, view):
        nothing = no_updates(view.clients, view.params.dense, view.embedding_size)
        {trick}
        return nothing
'''

TRICKS = {
    "exits": ("raise SystemExit(0)", "its process ended by itself"),
    "exits at once": ("os._exit(0)", "its process ended by itself (exit code 0)"),
    "kills whoever began it": ("os.kill(os.getppid(), 9)", "PermissionError"),
    "kills everybody": ("os.kill(-1, 9)", "PermissionError"),
    "hangs": ("while True: pass", "did not answer within"),
    "hangs and ignores signals": ("signal.signal(15, signal.SIG_IGN)\n        while True: pass", "did not answer within"),
    "takes memory": ("x = bytearray(1 << 40)", "MemoryError"),
    "forks": ("while True: os.fork()", "PermissionError"),
    "starts a program": ("subprocess.run(['/bin/true'])", "PermissionError"),
    "opens a connection": ("socket.socket()", "PermissionError"),
    "reads a file": ("Path('/etc/passwd').read_text()", "PermissionError"),
    "writes a file": ("Path(fedbench.__file__).with_name('x').write_text('x')", "PermissionError"),
    "reads data": ("from fedbench.data import load_split; load_split('ml-100k', 'leave-one-out', seed=0)", "FEDBENCH_DATA"),
    "asks for what it does not declare": ("view.item_popularity", "card declares nothing"),
    "hides that it asked": ("try: view.honest()\n        except Exception: pass", "card declares nothing"),
    "looks for the federation": ("next(o for o in gc.get_objects() if type(o).__name__ == 'Federation')", "StopIteration"),
    "looks up the stack": ("sys._getframe(1).f_locals['self'].task", "AttributeError"),
    "returns nonsense": ("return 3", "no Updates"),
    "returns an object of its own": ("return Path('/')", "none of what an entry may return"),
    "floods the output": ("print('x' * 1_000_000)", ""),
    "closes everything": ("os.closerange(0, 100)", "its process ended"),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _no_processes_left() -> Iterator[None]:
    yield
    close()


def attacked(source: str, limits: Limits | None = None, **more: object) -> RunRecord:
    content = source.encode()
    cls = isolated_class(Path("trick.py"), content, hashlib.sha256(content).hexdigest(), limits or Limits(seconds=30))
    with ATTACKS.lent(cls.card.name, cls):
        return run(scenario(cls.card.name, **more), 0)


def scenario(name: str, **more: object) -> Scenario:
    return Scenario("longtail-small", "mf", name, malicious_ratio=0.05, protocol_params={"epochs": 2}, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("trick", TRICKS)
def test_what_an_isolated_attack_cannot_do(trick: str) -> None:
    code, reason = TRICKS[trick]
    record = attacked(HEAD + BODY.format(trick=code), Limits(seconds=2 if "hang" in trick else 30))
    if reason:
        assert record.status == "failed"
        assert reason in (record.error or "")
    else:
        assert record.status == "ok"
    assert record.isolation.startswith("sandbox:") or record.isolation == "process"


def test_it_is_not_given_the_rule_that_its_card_declares() -> None:
    knows = BODY.replace("Channel.GRADIENT)", "Channel.GRADIENT, frozenset({{Knowledge.DEFENSE}}))")
    record = attacked(HEAD + knows.format(trick="view.simulation.begin(3)"))
    assert record.status == "failed"
    assert "asked for a simulation of the server's rule, which is not given to it here" in (record.error or "")


def test_how_much_is_public_stands_in_the_record() -> None:
    knows = BODY.replace("Channel.GRADIENT)", "Channel.GRADIENT, frozenset({{Knowledge.PUBLIC_INTERACTIONS}}))")
    sly = knows.replace('    """Nothing that is written down."""', "    public_fraction = 1.0")
    with pytest.raises(UserError, match="public_fraction = 1 must be the value of a parameter of that name"):
        attacked(HEAD + sly.format(trick="view.public_interactions"))


@pytest.mark.parametrize("at_import", ["raise SystemExit(0)", "import os; os._exit(0)", "while True: pass"])
def test_a_file_that_does_so_when_it_is_imported(at_import: str) -> None:
    with pytest.raises(UserError, match=r"trick\.py:.*(SystemExit|ended by itself|within 3 s)"):
        attacked(HEAD + at_import + BODY.format(trick="pass"), Limits(start=3))


@pytest.mark.parametrize("optimizers", ["torch.optim", "getattr(torch, 'op' + 'tim')"])
def test_optimizers_are_there_whether_its_text_names_them_or_not(optimizers: str) -> None:
    close()
    step = f"p = torch.ones(1, requires_grad=True); p.grad = torch.ones(1); {optimizers}.Adam([p]).step()"
    record = attacked(HEAD + BODY.format(trick=step))
    assert record.status == "ok", record.error


@pytest.mark.parametrize("name", ["explicit-boost", "pieck-uea", "fedrecattack", "a-hum", "pipattack", "p2"])
def test_the_same_record_as_in_this_process(name: str) -> None:
    source = source_of(ATTACKS.get(name))
    there, here = attacked(source), run(scenario(name), 0)
    assert there.attack == name
    assert there.status == "ok"
    for field in ("metrics", "curve", "attack_knowledge", "attack_params", "scenario_id", "rounds"):
        assert getattr(there, field) == getattr(here, field), field
    assert here.isolation == "none"


@pytest.mark.parametrize(
    ("name", "defense"), [("psmu-pp", "none"), ("popularity-image", "none"), ("psmu-v-adaptive", "blur")]
)
def test_the_same_images_as_in_this_process(name: str, defense: str) -> None:
    """The network that looks at them stays here, and so does what purifies them."""
    source = source_of(ATTACKS.get(name))
    here = run(painted(name, defense), 0)
    content = source.encode()
    cls = isolated_class(Path("painter.py"), content, hashlib.sha256(content).hexdigest(), Limits(seconds=60))
    with ATTACKS.lent(name, cls):
        there = run(painted(name, defense), 0)
    assert (here.status, there.status) == ("ok", "ok"), there.error
    assert there.isolation != "none"
    assert here.uploads
    for field in ("metrics", "curve", "uploads", "images", "attack_knowledge", "attack_params"):
        assert getattr(there, field) == getattr(here, field), field


def painted(name: str, defense: str) -> Scenario:
    few = {"epochs": 3, "attack_start": 2, "evaluate_every": 3, "clients_per_round": 64, "learning_rate": 0.02}
    return Scenario(
        "longtail-small",
        "vncf",
        name,
        defense=defense,
        malicious_ratio=0.02,
        protocol="tois",
        protocol_params=few,
        target="least-popular-with-image",
        model_params={"extractor": "random-conv"},
        attack_params={"eps": 16},
    )


LOOKS = {
    "looks at no images": ("images.extract(torch.zeros(3, 4))", "are no images"),
    "looks at larger images": ("images.extract(torch.zeros(1, 3, 4096, 4096))", "no images of the catalogue's size"),
    "looks at too many": (
        "images.extract(images.pixels[:1].float().expand(257, -1, -1, -1).clone())",
        "257 images at once",
    ),
    "wants gradients of other features": (
        "images.extract._ask('pull', images.pixels[:1].float(), torch.zeros(2, 2))",
        "gradients of other features",
    ),
    "wants the purifier": ("view.purify(images.pixels[:1])", "card declares nothing"),
    "goes too far": ("shown += 40", "more than its eps"),
}


@pytest.mark.parametrize("look", LOOKS)
def test_what_an_isolated_painter_cannot_do(look: str) -> None:
    code, reason = LOOKS[look]
    source = f"""
import torch
from fedbench import Attack, AttackCard, Channel, Goal, Parameters, ReplacedImages

class Painter(Attack):
    card = AttackCard("painter", "A painter", "none", Goal.PROMOTE, Channel.IMAGE)

    class Params(Parameters):
        eps: int = 8

    def perturb(self, images, view):
        shown = images.pixels[view.targets].clamp(0, 200)
        {code}
        return ReplacedImages(view.targets, shown)
""".encode()
    cls = isolated_class(Path("painter.py"), source, hashlib.sha256(source).hexdigest(), Limits(seconds=60))
    with ATTACKS.lent("painter", cls):
        record = run(painted("painter", "none"), 0)
    assert record.status == "failed"
    assert reason in (record.error or "")


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "_PATIENCE", 0.001)
    with pytest.raises(FedbenchError, match=r"did not answer within 0\.001 s: the machine is too busy"):
        nursery.Nursery().fork(Limits())
