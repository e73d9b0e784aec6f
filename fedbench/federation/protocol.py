"""How a federation is set up: every choice that belongs neither to a dataset, a model, an attack nor a defense."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from fedbench.entries.cards import LATER, Parameters

PositiveRate = Annotated[float, Field(gt=0)]


class Protocol(Parameters):
    """How data are split, clients trained, metrics computed; ``scenarios/protocols.py`` has a preset for each paper."""

    # Data.
    split: str = Field(
        "leave-one-out", description="which split of the dataset; `fedbench data info` names those it has"
    )
    duplicates: Literal["drop", "keep"] = Field(
        "drop", description="repeated and leaked pairs: removed, or kept as in the published runs"
    )

    # Training rows of a client.
    negatives_per_positive: int = Field(
        1, ge=1, le=1_000, description="q, negatives drawn for each positive (memory grows with it)"
    )
    negatives: Literal["once", "epoch"] = Field("once", description="drawn once before training, or anew each epoch")
    local_batch: int | None = Field(None, ge=1, description="rows a client samples for its step; None: all of them")
    negatives_exclude: Literal["train", "all"] = Field(
        "train",
        description="negatives are no training items of the client, or none of all its items, held-out ones too",
        json_schema_extra=LATER,
    )
    duplicate_rows: Literal["sum", "last"] = Field(
        "sum",
        description="repeats of an item in one upload: summed (the definition), or the last kept (published code with bce)",
    )

    # Local training.
    loss: Literal["bce", "bpr"] = Field("bce", description="pointwise cross-entropy, or Bayesian personalised ranking")
    reduction: Literal["mean", "sum"] = Field("mean", description="over a client's rows (BCE) or pairs (BPR)")
    regularization: float = Field(
        0.0, ge=0, description="lambda of (lambda/2)(|u|^2 + sum of |v_j|^2) in an honest loss"
    )
    regularized: Literal["touched", "all"] = Field(
        "touched",
        description="parameters in the L2 term: a client's own and its items', or all public ones, whether touched or not",
        json_schema_extra=LATER,
    )
    learning_rate: float = Field(1.0, gt=0, description="eta of clients and server")
    client_learning_rate: PositiveRate | tuple[PositiveRate, PositiveRate] | None = Field(
        None,
        description="of the clients' private embeddings where it is not the server's; two: each client has its own for the"
        " whole training, drawn uniformly between them [ICDE'24 Table X]",
        json_schema_extra=LATER,
    )

    # Rounds.
    clients_per_round: int | float = Field(
        256, gt=0, description="cohort: a number, or a share of all clients when below 1"
    )
    schedule: Literal["shuffled", "independent"] = Field(
        "shuffled",
        description="shuffled: each epoch all clients in random order, cut in cohorts; independent: drawn each round",
    )
    rounds_per_epoch: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="rounds between two counts of the epoch; None: as many as visit every client once",
        json_schema_extra=LATER,
    )
    epochs: int = Field(200, ge=1, le=100_000, description="length of training (published: at most 200)")
    aggregation: Literal["sum", "mean", "weighted"] = Field(
        "sum", description="of the cohort's gradients, on the server; weighted: mean by numbers of samples"
    )
    server_optimizer: Literal["sgd", "adam"] = Field(
        "sgd", description="how the public parameters follow the gradient", json_schema_extra=LATER
    )
    user_optimizer: Literal["sgd", "adam", "lazy-adam"] = Field(
        "sgd",
        description="how users' embeddings follow theirs; adam: one for the whole table, where absent users move by"
        " momentum [AAAI'23 code]; lazy-adam: they stay",
        json_schema_extra=LATER,
    )
    row_clip: float | None = Field(
        None, gt=0, description="the server clips every uploaded row to this norm; None: not"
    )

    # Malicious clients.
    malicious_clients: Literal["injected", "compromised"] = Field(
        "injected", description="fake extra users, or real users that the attacker controls"
    )
    malicious_pool: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the users, drawn once for a dataset, among whom the compromised are and of whom none is"
        " evaluated, whatever the malicious ratio; None: all users, and all honest ones are evaluated",
        json_schema_extra=LATER,
    )
    attack_start: int = Field(
        1, ge=1, description="first epoch of the attack; compromised clients are honest before it"
    )

    # Evaluation.
    er_mask: Literal["train", "train+test"] = Field("train", description="items that are not competitors of the target")
    er_eligible: Literal["train", "train+test"] = Field(
        "train", description="users with the target here are not counted"
    )
    er_denominator: Literal["eligible", "all"] = Field("eligible", description="users over whom ER@K is taken")
    ranking: Literal["sampled", "full"] = Field(
        "sampled", description="headline HR@K: against 99 sampled negatives (exact expectation), or by full ranking"
    )
    ties: Literal["against", "half"] = Field(
        "against",
        description="items that score as high as the measured one are ahead of it, or half of them are",
        json_schema_extra=LATER,
    )
    seen_held_out: Literal["ranked", "missed"] = Field(
        "ranked",
        description="a held-out item that the user has in training too: ranked like any other, or never found",
        json_schema_extra=LATER,
    )
    subgroup: int = Field(
        0,
        ge=0,
        le=100,
        description="exposure is measured inside and outside of a subgroup, too: the users who have all of so many items,"
        " drawn once among those that more than `subgroup_frequency` of the users have; 0: of none",
        json_schema_extra=LATER,
    )
    subgroup_draw: int = Field(
        0, ge=0, le=9_999, description="which draw, by its number, as of targets", json_schema_extra=LATER
    )
    subgroup_frequency: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of the users who must have an item of the subgroup's [subgroup-spattack code: 0.2]",
        json_schema_extra=LATER,
    )
    evaluate_users: int | None = Field(
        None,
        ge=1,
        description="so many of the honest users are measured, drawn once in a run, for all of them; records have the"
        " standard error; None: all are",
        json_schema_extra=LATER,
    )
    evaluate_every: int = Field(10, ge=1, description="epochs between evaluations; the last epoch is always evaluated")

    @field_validator("client_learning_rate")
    @classmethod
    def _from_low_to_high(cls, value: float | tuple[float, float] | None) -> float | tuple[float, float] | None:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise PydanticCustomError("order", "the lower of the two comes first")
        return value
