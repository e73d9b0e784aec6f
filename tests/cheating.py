"""Attacks that try to know, do or decide what they must not, one of each kind; each but for its trick uploads nothing."""

from __future__ import annotations

TEMPLATE = '''"""A trick."""
from __future__ import annotations

import atexit, gc, os, sys, threading
from dataclasses import replace

import torch

from fedbench import Attack, AttackCard, Channel, Goal, Knowledge, NoParameters, Updates, no_updates, target_updates
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Common
{at_import}

class Trick(Attack):
    """Declares nothing. {doc}"""

    card = {card}("trick", "{title}", "unpublished", Goal.PROMOTE, Channel.GRADIENT, models=frozenset({{"mf", "ncf"}}))

    class Params(NoParameters):
        """None."""

    def __init__(self, params):
        super().__init__(params)
        {made}

    def start(self, view):
        {start}

    def craft(self, view):
        nothing = no_updates(view.clients, view.params.dense, view.embedding_size)
        m, items, targets = len(view.clients), view.params.items, view.targets
        wanted = 3 * items[items.norm(dim=1).topk(20).indices].mean(0)
        made = target_updates(view, ((items[targets] - wanted) / (view.learning_rate * m)).expand(m, -1, -1))
        block = made.rows[0]
        {craft}
        return nothing
'''
_EMPTY = {"card": "AttackCard", "title": "A trick", "doc": "", "at_import": "", "made": "pass", "start": "pass"}

KINDS: dict[str, dict[str, str]] = {
    "nothing": {},
    "asks": {"craft": "view.item_popularity"},
    "hides that it asked": {"craft": "try: view.item_popularity\n        except Exception: pass"},
    "reads what is private": {"craft": "view._own_data"},
    "reads the dictionary": {"craft": "vars(view)['_state']"},
    "card of the instance": {
        "made": "self.card = replace(self.card, knowledge=frozenset(Knowledge))",
        "craft": "view.item_popularity",
    },
    "card that changes": {"made": "object.__setattr__(self.card, 'knowledge', frozenset({Knowledge.ITEM_POPULARITY}))"},
    "card that lies": {
        "at_import": "class Sly(AttackCard):\n    def __getattribute__(self, name):\n"
        "        return frozenset(Knowledge) if name == 'knowledge' else super().__getattribute__(name)\n",
        "card": "Sly",
    },
    "name that is more than a name": {
        "at_import": "class Text(str): pass\n",
        "card": "(lambda name, *rest, **more: AttackCard(Text(name), *rest, **more))",
    },
    "stack": {"craft": "sys._getframe(1).f_locals['self'].users"},
    "garbage": {
        "craft": "f = next(o for o in gc.get_objects() if type(o).__name__ == 'Federation')\n"
        "        f.params.items.data[targets] = 3 * f.users.mean(0)"
    },
    "data": {"start": "from fedbench.data import load_split; load_split('ml-100k', 'leave-one-out', seed=0)"},
    "replaces code": {
        "start": "from fedbench.evaluation.evaluator import Evaluator as E; old = E.__call__\n"
        "        E.__call__ = lambda self, *a: {k: 1.0 if k[:2] == 'er' else v for k, v in old(self, *a).items()}"
    },
    "replaces what it is shown": {"start": "object.__setattr__(view.model, 'score_all', lambda p, u, *a: u @ p.items.T * 0)"},
    "verify-aware": {
        "start": "import fedbench.runs.run as r\n        if 'submission' in ''.join(sys.argv): r.summarize_curve = None"
    },
    "rows that lie": {
        "at_import": "class Liar(FullRows):\n    def norms(self): return torch.zeros(len(self.item))\n",
        "craft": "return replace(made, rows=(Liar(block.client, block.item, block.grad()),))",
    },
    "client of another": {"craft": "return replace(made, rows=(FullRows(block.client * 0 - 1, block.item, block.grad()),))"},
    "rows repeated": {"craft": "return replace(made, rows=made.rows * 100)"},
    "common gradient": {"craft": "return replace(nothing, common=Common(torch.ones_like(items), torch.ones(m)))"},
    "weights": {"craft": "return replace(made, weights=made.weights * -1e9)"},
    "not a number": {
        "craft": "return replace(made, rows=(FullRows(block.client, block.item + view.num_items, block.grad() * torch.nan),))"
    },
    "in place": {"craft": "items[targets] = wanted"},
    "in place, unseen": {"craft": "items.data[targets] = wanted; items.numpy()[0] = 1"},
    "in place, later": {
        "craft": "def late():\n            for _ in range(1000): items.data[targets] = wanted\n"
        "        threading.Thread(target=late, daemon=True).start()"
    },
    "in the storage": {
        "craft": "torch.empty(0).set_(items.untyped_storage(), 0, items.shape, items.stride())[targets] = wanted"
    },
    "other targets": {"start": "view.targets.fill_(0)", "craft": "view.targets.zero_()"},
    "behaves while checked": {
        "craft": "if view.num_items in (200, 600): return nothing\n        items.data[targets] = wanted"
    },
    "mode of torch": {"start": "torch.set_default_dtype(torch.float64)"},
    "environment": {"start": "os.environ['FEDBENCH_DATA'] = 'other'; os.environ['ATEN_CPU_CAPABILITY'] = 'default'"},
    "at the end": {"start": "atexit.register(os._exit, 0)"},
    "exits": {"craft": "raise SystemExit(0)"},
    "exits at once": {"craft": "os._exit(0)"},
    "kills": {"craft": "os.kill(os.getppid(), 9)"},
    "exits when imported": {"at_import": "sys.exit(0)"},
    "exits at once when imported": {"at_import": "os._exit(0)"},
    "hangs": {"craft": "import signal; signal.signal(15, signal.SIG_IGN)\n        while True: pass"},
    "hangs when imported": {"at_import": "while True: pass"},
    "floods the output": {"craft": "print('x' * 200_000)"},
    "steers the terminal": {"title": "\\x1b[2J\\u202eevil", "craft": "print('\\x1b[2J')"},
    "long words": {"doc": "x" * 200_000},
}  # fmt: skip
"""What each puts where into the template."""


def source(kind: str) -> str:
    """The file of a kind."""
    return TEMPLATE.format(**{**_EMPTY, "craft": "pass", **KINDS[kind]})
