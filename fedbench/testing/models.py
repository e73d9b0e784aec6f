"""The contract of a recommender, as checks that anyone can run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from fedbench.federation.batch import Batch
from fedbench.federation.losses import Loss
from fedbench.federation.model import Histories
from fedbench.federation.population import Task
from fedbench.federation.simulation import Federation
from fedbench.models import LocalStep, PublicParams, Recommender
from fedbench.testing.federations import small_federation, small_task
from fedbench.testing.finding import (
    ITSELF,
    Budget,
    Finding,
    Stop,
    Trials,
    check_global_state,
    check_identity,
    check_memory,
    check_repeats,
    check_time,
    global_state,
    measured,
    source_file,
)
from fedbench.testing.learning import check_learning
from fedbench.testing.watching import Untouched, tensors_of
from fedbench.threads import threads

USERS, ITEMS = 30, 40
RING, LENGTH = 60, 8
"""Users and items of the ring that a model is trained on, and how many each user takes."""
LEARNED = 0.7
"""Share of users whose next item is then ranked right; a guess gives 0.5."""
WHOLE = 60
ROUNDS = 3
"""So many are timed; the quickest counts."""
SLOW = 3.0
"""From so many times a round of mf on, it is said how to be quicker."""
TOLERANCE = 1e-4


@dataclass
class Parts:
    """A model with parameters, users and the rows of some clients."""

    model: Recommender
    federation: Federation
    loss: Loss
    batch: Batch
    users: torch.Tensor

    @property
    def params(self) -> PublicParams:
        return self.federation.params

    def step(self, batch: Batch | None = None, users: torch.Tensor | None = None) -> LocalStep:
        """The local step of the clients, or of others."""
        return self.model.local_step(
            self.params, self.users if users is None else users, batch or self.batch, self.loss
        )


def check_model(cls: type[Recommender], budget: Budget | None = None) -> Iterator[Finding]:
    """Every check of a model, one after the other: shapes, scores, gradients, and a small federation that trains it.

    Gradients are compared with those of automatic differentiation of the loss of its own ``logits``, client by client; of
    models that know users by their histories the loss is not made of ``logits`` alone, and that check is skipped.

    Args:
        cls: the model's class; it need not be registered. budget: of time and memory.
    """
    findings = list(check_identity("model", cls))
    yield from findings
    if not all(each.ok for each in findings):
        return
    trials = Trials(source_file(cls))
    losses = ["bpr"] if cls.reads_sequences else ["bce", "bpr"]
    for kind in losses:
        for name, check, todo in _CHECKS:
            if trials.broken:
                yield Finding(f"{name}, {kind}", "skipped", "another check failed before")
                continue
            with trials.trial(f"{name}, {kind}") as trial:
                _watched(_parts(cls, kind), check)
            yield trials.ran(trial, todo)
    for name, what, todo in _WITHIN_TRIALS:
        yield trials.kept(name, what, todo)
    yield trials.generators_kept()
    yield from _check_deterministic(cls, losses[0], trials)
    yield _check_training(cls, losses[0], trials)
    yield check_learning(cls, trials)
    yield from _check_cost(cls, losses[0], trials, budget or Budget())


def separation(federation: Federation, user: torch.Tensor, item: torch.Tensor) -> float:
    """The share of pairs that the model ranks above one of the user's with an item that is none of its own.

    Args:
        federation: in training. user, item: int64 [P], the pairs.
    """
    f, task = federation, federation.task
    with torch.no_grad():
        histories = Histories.of(task.train_user, task.train_item, task.num_users)
        users = f.model.represent(f.params, f.users[: task.num_users], histories)
        tables, everybody = f.training.tables, torch.arange(task.num_users)
        scores = (
            f.model.score_all(f.params, users) if tables is None else tables.scores(f.model, f.params, everybody, users)
        )
    own = torch.zeros(task.num_users, task.num_items, dtype=torch.bool)
    own[task.train_user, task.train_item] = True
    own[user, item] = True
    others = torch.rand(own.shape, generator=torch.Generator().manual_seed(5)).masked_fill(own, -1).argmax(1)
    return float((scores[user, item] > scores[user, others[user]]).float().mean())


def _parts(cls: type[Recommender], kind: str) -> Parts:
    model = cls(cls.Params(**({"init_std": 0.3} if "init_std" in cls.Params.model_fields else {})))
    federation = small_federation(model, task=small_task(USERS, ITEMS), loss=kind)
    clients = torch.tensor([3, 17, 1, 8, 25])
    return Parts(
        model,
        federation,
        federation.training.loss,
        federation.population.rows.select(clients),
        federation.users.index_select(0, clients),
    )


def _watched(parts: Parts, check: Callable[[Parts], None]) -> None:
    before, untouched = global_state(), Untouched()
    for name, value in (("params", parts.params), ("users", parts.users), ("batch", parts.batch)):
        untouched.add(name, value)
    check(parts)
    check_global_state(before, "it")
    untouched.check("it")


def _shapes(parts: Parts) -> None:
    model, params, n = parts.model, parts.params, len(parts.batch.clients)
    d = model.embedding_size
    _is(params.items, (ITEMS, d), "init_params().items")
    for name, value in params.dense.items():
        _is(value, tuple(value.shape), f"init_params().dense[{name!r}]")
    users = model.init_users(4, torch.Generator().manual_seed(0))
    _is(users, (4, *parts.users.shape[1:]), "init_users()")
    step = parts.step()
    for block in step.rows:
        _is(block.grad(), (len(block.item), d), "local_step().rows")
    _is(step.users, tuple(parts.users.shape), "local_step().users")
    stacked, total = step.dense.stacked(), step.dense.total()
    if set(stacked) != set(params.dense) or set(total) != set(params.dense):
        raise Stop(ITSELF, f"local_step().dense has {sorted(stacked)}; the model has {sorted(params.dense)}")
    for name, value in params.dense.items():
        _is(stacked[name], (n, *value.shape), f"local_step().dense.stacked()[{name!r}]")
        _is(total[name], tuple(value.shape), f"local_step().dense.total()[{name!r}]")
    if not all(bool(torch.isfinite(value).all()) for value in (step.users, *stacked.values(), *_rows(step))):
        raise Stop("finite", "local_step() gave NaN or infinite numbers")


def _scores(parts: Parts) -> None:
    params, users = parts.params, _represented(parts)
    table = parts.model.score_all(params, users)
    _is(table, (len(users), ITEMS), "score_all()")
    pairs = users[:, None].expand(-1, ITEMS, -1)
    described = params.described(torch.arange(ITEMS))
    aligned = parts.model.logits(params.dense, pairs, described.expand(len(users), -1, -1))
    _is(aligned, (len(users), ITEMS), "logits()")
    _equal(table, aligned, "score_all() and logits() give the same pair")
    stacked = {name: torch.stack([value, 2 * value]) for name, value in params.dense.items()}
    both = parts.model.logits(stacked, pairs[:2], described.expand(2, -1, -1))
    _equal(both[0], table[0], "logits() with dense parameters for each batch entry, and without, give the same pair")


def _clients(parts: Parts) -> None:
    """The gradients of a cohort are those of its clients, one by one."""
    whole = parts.step()
    stacked, total = whole.dense.stacked(), whole.dense.total()
    for name, value in total.items():
        _equal(value, stacked[name].sum(0), f"dense.total() and the sum of dense.stacked() give {name!r}")
    rows = torch.zeros_like(parts.params.items)
    for place, client in enumerate(parts.batch.clients.tolist()):
        alone = parts.step(
            parts.federation.population.rows.select(torch.tensor([client])), parts.users[place : place + 1]
        )
        _equal(whole.users[place], alone.users[0], "a cohort's step and a client's own give the user's gradient")
        for name, value in alone.dense.stacked().items():
            _equal(stacked[name][place], value[0], f"a cohort's step and a client's own give {name!r}")
        rows += _summed(alone, rows)
    _equal(_summed(whole, rows), rows, "a cohort's step and its clients' own give the item gradients")


def _gradients(parts: Parts) -> None:
    """``local_step`` against automatic differentiation of each client's loss."""
    step, model, batch = parts.step(), parts.model, parts.batch
    stacked, expected = step.dense.stacked(), torch.zeros_like(parts.params.items)
    for place in range(len(batch.clients)):
        items = parts.params.items.clone().requires_grad_()
        user = parts.users[place].clone().requires_grad_()
        dense = {name: value.clone().requires_grad_() for name, value in parts.params.dense.items()}
        mine = batch.client == place
        described = replace(parts.params, items=items).described(batch.item[mine])
        logits = model.logits(dense, user.expand(int(mine.sum()), -1), described)
        loss = _loss(parts.loss, batch, mine, logits)
        found = torch.autograd.grad(loss, [items, user, *dense.values()], allow_unused=True)
        given = [
            torch.zeros_like(p) if g is None else g for g, p in zip(found, [items, user, *dense.values()], strict=True)
        ]
        expected += given[0]
        _equal(step.users[place], given[1], "local_step().users and automatic differentiation give the user's gradient")
        for name, value in zip(dense, given[2:], strict=True):
            _equal(stacked[name][place], value, f"local_step().dense and automatic differentiation give {name!r}")
    _equal(_summed(step, expected), expected, "local_step().rows and automatic differentiation give the item gradients")


def _loss(loss: Loss, batch: Batch, mine: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The mean loss of one client, from the logits of its rows."""
    if loss.kind == "bce":
        weight, positive = batch.weight[mine], batch.positive[mine]
        softplus = torch.nn.functional.softplus
        return (positive * softplus(-logits) + (weight - positive) * softplus(logits)).sum() / weight.sum()
    assert batch.pair_positive is not None
    assert batch.pair_negative is not None
    place = mine.cumsum(0) - 1
    pairs = mine[batch.pair_positive]
    margin = logits[place[batch.pair_positive[pairs]]] - logits[place[batch.pair_negative[pairs]]]
    return torch.nn.functional.softplus(-margin).mean()


def _by_logits(parts: Parts) -> None:
    if type(parts.model).represent is Recommender.represent:
        _gradients(parts)


_CHECKS: list[tuple[str, Callable[[Parts], None], str]] = [
    ("shapes", _shapes, "The docstrings of fedbench.federation.model say every shape; parameters are float32."),
    ("scores", _scores, "logits(), score_all() and represent() must describe one and the same model."),
    ("clients by themselves", _clients, "A client's gradient may depend on its own rows only."),
    ("gradients", _by_logits, "local_step() must be the gradient of the loss of logits()."),
]
_WITHIN_TRIALS: list[tuple[str, str, str]] = [
    (
        "finite",
        "no NaN or infinite number in a local step",
        "Look for a division by a count that can be 0, or a logarithm of 0.",
    ),
    ("inputs unchanged", "parameters, users and rows stay as they are", "Work on a copy: a + b instead of a += b."),
]


def _check_deterministic(cls: type[Recommender], kind: str, trials: Trials) -> Iterator[Finding]:
    if trials.broken:
        yield Finding("deterministic", "skipped", "not every check came to an end")
        return

    def trained(count: int) -> list[torch.Tensor]:
        with threads(count):
            return [value for _, value in tensors_of("", _trained(cls, kind, 2).params)]

    yield from check_repeats(
        trained,
        "the same seed gives the same parameters, bit for bit",
        "two runs with the same seed ended with different parameters",
        "Draw from the generator that is handed in, and keep nothing in the class.",
    )


def _check_training(cls: type[Recommender], kind: str, trials: Trials) -> Finding:
    """On a ring of items, of which every user takes some that follow each other, the next one is learned."""
    name = "training"
    if trials.broken:
        return Finding(name, "skipped", "not every check came to an end")
    user = torch.arange(RING)
    next_item = (user + LENGTH) % RING
    before, after = (separation(_trained(cls, kind, epochs), user, next_item) for epochs in (0, WHOLE))
    text = f"share of users whose next item is ranked right, {before:.2f} before and {after:.2f} after {WHOLE} epochs"
    if after >= max(before, LEARNED):
        return Finding(name, "ok", text)
    return Finding(name, "failed", text, "Gradients are of a loss: the server subtracts them.")


def _trained(cls: type[Recommender], kind: str, epochs: int) -> Federation:
    user = torch.arange(RING).repeat_interleave(LENGTH)
    item = (user + torch.arange(LENGTH).repeat(RING)) % RING
    task = Task(RING, RING, user, item, torch.zeros(0, dtype=torch.int64), 0)
    learning: dict[str, Any] = {
        "learning_rate": 0.02,
        "server_optimizer": "adam",
        "user_optimizer": "adam",
        "aggregation": "mean",
    }
    if cls.personal:
        # Plain steps, at the rates of protocol ijcai23.
        learning = {"learning_rate": 8.0 * RING, "client_learning_rate": 0.1, "aggregation": "mean"}
        learning["negatives"] = "epoch"
    federation = small_federation(cls(cls.Params()), task=task, loss=kind, **({"clients_per_round": RING} | learning))
    for _ in range(epochs):
        federation.train_epoch()
    return federation


def _check_cost(cls: type[Recommender], kind: str, trials: Trials, budget: Budget) -> Iterator[Finding]:
    if trials.broken:
        yield from (Finding(name, "skipped", "not every check came to an end") for name in ("time", "memory"))
        return
    own, honest = (
        small_federation(model, task=small_task(300, 600), clients_per_round=300, loss=kind)
        for model in (cls(cls.Params()), "mf")
    )
    usual, _ = measured(honest.train_epoch, ROUNDS)
    seconds, extra = measured(own.train_epoch, ROUNDS)
    yield check_time(seconds, usual, budget, "for a round of 300 clients, mf being the honest one")
    if seconds > SLOW * usual:
        yield Finding(
            "speed",
            "warning",
            f"a round takes {seconds / usual:.1f} times as long as one of mf",
            "Write local_step() by hand, which makes the rounds, and score_all(), which makes the evaluation, as"
            " fedbench/models/mf.py does; these checks compare them with logits().",
        )
    yield check_memory(extra, budget)


def _represented(parts: Parts) -> torch.Tensor:
    f, task = parts.federation, parts.federation.task
    histories = Histories.of(task.train_user, task.train_item, task.num_users)
    return parts.model.represent(f.params, f.users[: task.num_users], histories)


def _rows(step: LocalStep) -> list[torch.Tensor]:
    return [block.grad() for block in step.rows]


def _summed(step: LocalStep, like: torch.Tensor) -> torch.Tensor:
    return sum((block.sum(len(like)) for block in step.rows), torch.zeros_like(like))


def _is(tensor: object, shape: tuple[int, ...], name: str) -> None:
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
        found = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise Stop(ITSELF, f"{name} is {found} instead of torch.float32 {list(shape)}")


def _equal(one: torch.Tensor, two: torch.Tensor, what: str) -> None:
    scale = max(float(two.abs().max()) if two.numel() else 0.0, 1e-3)
    if not torch.allclose(one, two, rtol=TOLERANCE, atol=TOLERANCE * scale):
        raise Stop(ITSELF, f"{what} as different numbers (off by {float((one - two).abs().max()):.2g})")
