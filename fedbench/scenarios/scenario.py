"""A scenario: dataset x model x attack x defense x malicious ratio x protocol (+ parameters), without the seed.

Its id is a hash of everything that can change a number: all parameters with their defaults filled in, and the
versions of the methods. Two scenarios with equal ids are the same experiment, whichever suite names them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from fedbench.attacks import ATTACKS
from fedbench.defenses import DEFENSES
from fedbench.defenses.chain import Chain
from fedbench.entries.cards import (
    AttackCard,
    DefenseFamily,
    Goal,
    Knowledge,
    Parameters,
    declared,
    identifying,
    parse_parameters,
)
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.defense import Defense
from fedbench.federation.protocol import Protocol
from fedbench.federation.unnamed import unnamed
from fedbench.models import MODELS, Recommender
from fedbench.scenarios import protocols
from fedbench.texts import visible
from fedbench.vision.denoisers import DENOISERS
from fedbench.vision.extractors import EXTRACTORS

ID_VERSION = 1
"""Raised when the engine itself changes what every run computes."""

WITH_IMAGE = "-with-image"
"""Ends the name of a policy that chooses among items that have an image."""
PER_SEED = "per-seed"
"""Begins the name of a policy that draws anew with every seed."""
TARGET_POLICIES = (
    "'random:K' (the K-th fixed random draw, K at most 9999), 'random-popular:K' (among the most popular tenth),"
    " 'per-seed' and 'per-seed-popular' (a draw of its own for every seed), 'least-popular', 'most-popular', any of these"
    " with '-with-image' before the colon, 'fixed:ITEM[,ITEM...]', or 'none'"
)
POPULAR_TARGETS = ("most-popular", "random-popular", "per-seed-popular")
"""How the policies begin whose targets somebody is shown, attack or not: those for attacks that demote."""
_TARGET = re.compile(
    r"random(-popular)?(-with-image)?:[0-9]{1,4}|per-seed(-popular)?(-with-image)?|(least|most)-popular(-with-image)?"
    r"|fixed:[0-9]{1,9}(,[0-9]{1,9}){,9999}|none"
)
"""Draws of targets are numbered like seeds, up to 9,999; a dataset has fewer than 10^9 items."""


@dataclass(frozen=True)
class Scenario:
    """One experiment, complete but for its seed. Parameters hold only what differs from the defaults.

    Dataset, model, attack and defense are names of entries; making a scenario loads nothing.
    """

    dataset: str
    """A name (`fedbench list datasets`)."""
    model: str
    """A name (`fedbench list models`)."""
    attack: str = "none"
    """A name (`fedbench list attacks`)."""
    defense: str = "none"
    """A name, or several joined by ``+``: filters in that order, the last aggregator wins."""
    malicious_ratio: float = 0.0
    """Malicious clients / genuine users of the dataset, 0 <= ratio < 1."""
    protocol: str = "icde24"
    """How the federation is set up (`fedbench list protocols`)."""
    target: str = "random:0"
    """Which items are promoted or demoted: ``random:K``, ``random-popular:K``, ``per-seed``, ``per-seed-popular``,
    ``least-popular``, ``most-popular``, any of these with ``-with-image`` (among items that have one),
    ``fixed:ITEM[,ITEM...]``, or ``none``."""
    num_targets: int = 1
    """How many targets a policy chooses."""
    model_params: Mapping[str, Any] = field(default_factory=dict)
    """What differs from the model's defaults (`fedbench show NAME`)."""
    attack_params: Mapping[str, Any] = field(default_factory=dict)
    """The same of the attack."""
    defense_params: Mapping[str, Any] = field(default_factory=dict)
    """The same of the defense; for a chain: one mapping for each part, by its name."""
    protocol_params: Mapping[str, Any] = field(default_factory=dict)
    """The same of the protocol."""

    def __post_init__(self) -> None:
        for name in ("dataset", "model", "attack", "defense", "protocol", "target"):
            if not isinstance(getattr(self, name), str):
                raise UserError(f"scenario: {name} = {getattr(self, name)!r} must be a string.")
        ratio = checked_ratio(self.malicious_ratio)
        if self.attack == "none" and ratio > 0:
            raise UserError(
                f"scenario: attack 'none' has no malicious clients, but malicious_ratio = {ratio!r}; use 0."
            )
        if self.attack != "none" and ratio == 0:
            raise UserError(f"scenario: attack {self.attack!r} needs malicious clients, but malicious_ratio = 0.")
        if not _TARGET.fullmatch(self.target):
            raise UserError(f"scenario: target = {visible(repr(self.target), 80)} must be {TARGET_POLICIES}.")
        if (
            isinstance(self.num_targets, bool)
            or not isinstance(self.num_targets, int)
            or not 1 <= self.num_targets < 10**9
        ):
            raise UserError(f"scenario: num_targets = {self.num_targets!r} must be a whole number of at least 1.")
        object.__setattr__(self, "malicious_ratio", ratio)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.key == other.key

    @functools.cached_property
    def key(self) -> str:
        """All fields as one canonical line of JSON."""
        return json.dumps({f.name: _plain(getattr(self, f.name)) for f in fields(self)}, sort_keys=True)

    @functools.cached_property
    def resolved(self) -> Resolved:
        """Every parameter with its default filled in; raises :class:`UserError` for what does not exist or fit."""
        model_cls = MODELS.get(self.model)
        attack_cls = ATTACKS.get(self.attack)
        defense_names = self.defense.split("+")
        defense_classes = [DEFENSES.get(name) for name in defense_names]
        protocol = protocols.preset(self.protocol, self.model, self.dataset, self.protocol_params)
        attack_values = self._given("attack", self.attack, self.attack_params)
        attack_params = parse_parameters(attack_cls.Params, attack_values, f"attack {self.attack!r}")
        attack_cls = attack_cls.for_params(attack_params)
        if attack_cls.card.models is not None and self.model not in attack_cls.card.models:
            raise UserError(
                f"attack {self.attack!r} does not apply to model {self.model!r}; it applies to"
                f" {', '.join(sorted(attack_cls.card.models))}."
            )
        if model_cls.reads_sequences and protocol.loss != "bpr":
            raise UserError(
                f"model {self.model!r} trains on pairs, but protocol {self.protocol!r} has loss = {protocol.loss!r}; set"
                " protocol_params = { loss = \"bpr\" } or use protocol 'aaai23'."
            )
        if model_cls.reads_sequences and protocol.negatives_per_positive != 1:
            raise UserError(
                f"model {self.model!r} takes one negative for each positive, but protocol {self.protocol!r} has"
                f" negatives_per_positive = {protocol.negatives_per_positive}; set it to 1."
            )
        if model_cls.personal and (protocol.user_optimizer, protocol.server_optimizer) != ("sgd", "sgd"):
            raise UserError(
                f"model {self.model!r} is made for plain steps of clients and server, but protocol {self.protocol!r} has"
                " Adam; use protocol 'ijcai23'."
            )
        pool = protocol.malicious_pool
        if pool is not None and self.malicious_ratio > pool:
            raise UserError(
                f"malicious_ratio = {self.malicious_ratio:g} is more than malicious_pool = {pool:g}, the share of users that"
                f" protocol {self.protocol!r} never evaluates."
            )
        if self.attack != "none" and protocol.attack_start > protocol.epochs:
            raise UserError(
                f"attack {self.attack!r} would never start: attack_start = {protocol.attack_start} of protocol"
                f" {self.protocol!r} lies beyond its epochs = {protocol.epochs}."
            )
        if Knowledge.SUBGROUP_ITEMS in declared(attack_cls, AttackCard).knowledge and not protocol.subgroup:
            raise UserError(
                f"attack {self.attack!r} promotes to a subgroup of the users, and protocol {self.protocol!r} has none; set"
                " protocol_params = { subgroup = 3 }, or another number of items that its users have."
            )
        if attack_cls.card.invents_users and model_cls.reads_sequences:
            raise UserError(
                f"attack {self.attack!r} does not apply to model {self.model!r}, which has no embeddings of users."
            )
        if attack_cls.card.channel.shows_images and not model_cls.reads_features:
            raise UserError(f"attack {self.attack!r} replaces images, which model {self.model!r} does not look at.")
        if self.target == "none" and attack_cls.card.goal in (Goal.PROMOTE, Goal.DEMOTE):
            raise UserError(f"attack {self.attack!r} needs target items, but target = 'none'.")
        if self.target.startswith("least-popular") and attack_cls.card.goal == Goal.DEMOTE:
            raise UserError(
                f"attack {self.attack!r} demotes what somebody is shown, which no item of target = {self.target!r} is; use"
                " 'most-popular' or 'random-popular:K'."
            )
        if self.attack != "none" and protocol.malicious_clients not in attack_cls.card.clients:
            raise UserError(
                f"attack {self.attack!r} needs {' or '.join(sorted(attack_cls.card.clients))} clients, but protocol"
                f" {self.protocol!r} has {protocol.malicious_clients} ones."
            )
        if attack_cls.card.channel.shows_images and "eps" not in attack_cls.Params.model_fields:
            raise UserError(
                f"attack {self.attack!r} shows images, so its Params must have eps, how far a pixel may move."
            )
        for cls in defense_classes:
            if cls.card.family == DefenseFamily.PURIFICATION and not model_cls.reads_features:
                raise UserError(
                    f"defense {cls.card.name!r} cleans images, which model {self.model!r} does not look at."
                )
            if cls.card.models is not None and self.model not in cls.card.models:
                raise UserError(
                    f"defense {cls.card.name!r} does not apply to model {self.model!r}; it applies to"
                    f" {', '.join(sorted(cls.card.models))}."
                )
            if cls.card.needs_users and model_cls.reads_sequences:
                raise UserError(
                    f"defense {cls.card.name!r} does not apply to model {self.model!r}, which has no embeddings of users."
                )
        if len(defense_names) > 1:
            if "none" in defense_names or len(set(defense_names)) < len(defense_names):
                raise UserError(f"defense chain {self.defense!r} must join different defenses, none of them 'none'.")
            stray = set(self.defense_params) - set(defense_names)
            if stray:
                raise UserError(
                    f"defense_params of chain {self.defense!r} name {min(stray)!r}, which is not a part of it."
                )
            parts = [self.defense_params.get(name, {}) for name in defense_names]
            for name, values in zip(defense_names, parts, strict=True):
                if not isinstance(values, Mapping):
                    raise UserError(
                        f"defense_params of chain {self.defense!r}: {name} = {values!r} must be a table of its parameters."
                    )
        else:
            parts = [self.defense_params]

        parts = [self._given("defense", name, values) for name, values in zip(defense_names, parts, strict=True)]
        model_values = self._given("model", self.model, self.model_params)
        return Resolved(
            protocol=protocol,
            model=model_cls(parse_parameters(model_cls.Params, model_values, f"model {self.model!r}")),
            attack_class=attack_cls,
            attack_params=attack_params,
            defenses=[
                (cls, parse_parameters(cls.Params, values, f"defense {cls.card.name!r}"))
                for cls, values in zip(defense_classes, parts, strict=True)
            ],
        )

    def _given(self, kind: str, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of a method as the scenario has them, on top of the protocol's."""
        if not isinstance(own, Mapping):
            raise UserError(f"scenario: {kind}_params = {own!r} must be a table of parameters.")
        return protocols.method_preset(self.protocol, kind, name, self.model, self.dataset) | dict(own)

    @functools.cached_property
    def id(self) -> str:
        """16 hexadecimal digits: SHA-256 over every resolved choice and the versions of the methods."""
        r = self.resolved
        content = {
            "id_version": ID_VERSION,
            "dataset": self.dataset,
            "model": [self.model, r.model.card.version, identifying(r.model.params), *frozen_parts(r.model.params)],
            "attack": [
                self.attack,
                r.attack_class.card.version,
                identifying(r.attack_params),
                *r.attack_class.tuned(r.attack_params),
            ],
            "defense": [
                [name, cls.card.version, identifying(params), *frozen_parts(params)]
                for name, (cls, params) in zip(self.defense.split("+"), r.defenses, strict=True)
            ],
            "malicious_ratio": self.malicious_ratio,
            "protocol": identifying(r.protocol),
            "target": self.target,
            "num_targets": 1 if self.target.startswith("fixed") else self.num_targets,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @functools.cached_property
    def clean(self) -> Scenario:
        """The twin without the attack (the defense stays, with what it assumes): what the defense costs.

        A defense that is given the true malicious ratio would be told 0 here and cost nothing; whoever deploys it
        cannot know that nobody attacks, so the twin states the share that the attacked scenario gives.
        """
        clean = replace(self.assuming(self.malicious_ratio), attack="none", attack_params={}, malicious_ratio=0.0)
        return shared(clean)

    def assuming(self, share: float) -> Scenario:
        """The same with ``assumed_ratio`` stated, in the parts of the defense that take one and state none; not for 0."""
        names = self.defense.split("+")
        if not isinstance(self.defense_params, Mapping):
            raise UserError(f"scenario: defense_params = {self.defense_params!r} must be a table of parameters.")
        stated: dict[str, Any] = dict(self.defense_params)
        for name in names if share else ():
            own = stated if len(names) == 1 else stated.get(name, {})
            if "assumed_ratio" in DEFENSES.get(name).Params.model_fields and isinstance(own, Mapping):
                own = own if own is stated else dict(own)
                if own.get("assumed_ratio") is None:
                    own["assumed_ratio"] = share
                if len(names) > 1:
                    stated[name] = own
        return replace(self, defense_params=stated)

    @functools.cached_property
    def undefended(self) -> Scenario:
        """The twin without the defense (the attack stays): what the defense prevents."""
        return shared(replace(self, defense="none", defense_params={}))

    def __str__(self) -> str:
        parts = [
            self.dataset,
            self.model,
            self.attack,
            self.defense,
            f"{self.malicious_ratio:g}",
            self.protocol,
            self.target,
        ]
        for prefix, values in (
            ("model", self.model_params),
            ("attack", self.attack_params),
            ("defense", self.defense_params),
            ("protocol", self.protocol_params),
        ):
            for key, value in sorted(values.items()):
                # Parameters of a chain are one table for each of its parts.
                inner = sorted(value.items()) if isinstance(value, Mapping) else ()
                parts += [f"{prefix}.{key}.{name}={each}" for name, each in inner] or [f"{prefix}.{key}={value}"]
        return " ".join(parts)


@functools.lru_cache(maxsize=1 << 14)
def shared(scenario: Scenario) -> Scenario:
    """The first scenario equal to this one: what it stands for is worked out once, however often a suite is planned."""
    return scenario


def forget_scenarios() -> None:
    """Forget what scenarios stand for, when a name is about to stand for something else."""
    shared.cache_clear()


def frozen_parts(params: Parameters) -> list[tuple[str, str, int]]:
    """The frozen networks that parameters name, with the versions of their cards: an extractor, or a denoiser.

    Raises:
        UserError: there is none of that name.
    """
    found = []
    for kind, registry in (("extractor", EXTRACTORS), ("denoiser", DENOISERS)):
        name = getattr(params, kind, None)
        if isinstance(name, str):
            found.append((kind, name, registry.get(name).card.version))
    return found


def checked_ratio(ratio: object) -> float:
    """``ratio`` as a number from 0 to below 1; raises :class:`UserError` for anything else."""
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio < 1:
        raise UserError(f"scenario: malicious_ratio = {ratio!r} must be a number from 0 to below 1 (0.05 is 5 %).")
    return float(ratio)


@dataclass(frozen=True)
class Resolved:
    """The objects and parameters that a scenario stands for."""

    protocol: Protocol
    model: Recommender
    attack_class: type[Attack]
    attack_params: Any
    defenses: list[tuple[type[Defense], Any]]

    def attack(self) -> Attack:
        """A fresh attack, with no memory."""
        return self.attack_class(self.attack_params)

    def defense(self) -> Defense:
        """A fresh defense, with no memory; one that does not come with fedbench sees no sender of an upload."""
        parts = [(cls if DEFENSES.ours(cls) else unnamed(cls))(params) for cls, params in self.defenses]
        return parts[0] if len(parts) == 1 else Chain(parts)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
