"""Whether a model learns to recommend, on data and under the protocol with which it would run."""

from __future__ import annotations

import time

import torch

from fedbench.data.longtail import SHAPES, generate
from fedbench.data.splits import make_split
from fedbench.evaluation.measurement import Measurement
from fedbench.federation.population import Task
from fedbench.models import Recommender
from fedbench.scenarios import protocols
from fedbench.testing.federations import small_federation
from fedbench.testing.finding import Finding, Trials

DATASET = "longtail-small"
SECONDS = 3.0
"""Of the processor, that the training may take."""
EVERY = 5
"""Epochs between two looks at HR@10."""
ROUNDS = 10
"""So many rounds are an epoch where the protocol counts rounds."""


def check_learning(cls: type[Recommender], trials: Trials) -> Finding:
    """Whether HR@10 comes up to that of recommending by popularity, within a standard error over the users.

    ``mf`` gets there in 15 epochs of 200, a tenth of a second. Trained no longer than that, than its protocol, and than
    :data:`SECONDS`; models that read images are not tried.

    Args:
        cls: the model's class. trials: those made of it so far.
    """
    name = "learning"
    if trials.broken:
        return Finding(name, "skipped", "not every check came to an end")
    if cls.reads_features:
        return Finding(name, "skipped", f"{DATASET} alone is tried, without images")
    begin = time.process_time()
    usual = protocols.usual(cls)
    protocol = protocols.preset(usual, cls.card.name, DATASET)
    rounds = protocol.rounds_per_epoch
    if rounds is not None:
        changed = {"rounds_per_epoch": ROUNDS, "epochs": protocol.epochs * rounds // ROUNDS}
        protocol = protocol.model_copy(update=changed)
    split = make_split(DATASET, protocol.split, generate(SHAPES[DATASET]), duplicates=protocol.duplicates, seed=0)
    train_user, train_item, *held_out = (
        torch.from_numpy(each) for each in (split.train.user, split.train.item, split.test.user, split.test.item)
    )
    nobody = torch.zeros(0, dtype=torch.int64)
    task = Task(
        split.num_users, split.num_items, train_user, train_item, nobody, 0, held_out=(held_out[0], held_out[1])
    )
    federation = small_federation(cls(cls.Params()), task=task, **protocol.model_dump())
    measure = Measurement(federation, split)
    metric = "hr_full_10" if protocol.ranking == "full" else "hr_10"
    popular, best, epoch = measure.popularity[metric], 0.0, 0
    error = (popular * (1 - popular) / split.num_users) ** 0.5
    while best < popular - error and epoch < protocol.epochs and time.process_time() - begin < SECONDS:
        federation.train_epoch()
        epoch += 1
        if epoch % (EVERY if rounds is None else 1) == 0 or epoch == protocol.epochs:
            if not federation.params.finite():
                break
            best = max(best, measure()[metric])
    length = f"{epoch} epochs" if rounds is None else f"{epoch * ROUNDS} rounds"
    text = f"HR@10 of {best:.2f} after {length} of {usual} on {DATASET}; by popularity it is {popular:.2f}"
    if best >= popular - error:
        return Finding(name, "ok", text)
    if federation.params.finite() and epoch < protocol.epochs:
        return Finding(name, "skipped", f"{text}; more takes longer than {SECONDS:g} s")
    start = " or --set model.init_std=0.3" if "init_std" in cls.Params.model_fields else ""
    step = protocol.learning_rate
    todo = (
        f"It does not learn at this step: try --set learning_rate={step * 10:g} (or {step / 10:g}){start} with `fedbench run"
        f" --dataset {DATASET} --model ...`."
    )
    return Finding(name, "warning", text, todo)
