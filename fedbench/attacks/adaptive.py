"""Adaptive attacks: another attack's uploads, scaled and mixed so that what the server's rule leaves of them is the most."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator

from fedbench.attacks import ATTACKS
from fedbench.attacks.own_data import random_profiles
from fedbench.entries.cards import AttackCard, Channel, Goal, Knowledge, Parameters, identifying, parse_parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.model import PublicParams
from fedbench.federation.rows import coalesced
from fedbench.federation.updates import Common, DenseGradients, Updates
from fedbench.federation.view import AttackerView, Profiles

Choice = tuple[float, float]
"""Scale and mix: ``(gamma, lambda)``."""
AS_IT_IS: Choice = (1.0, 0.0)
FIRST_FACTOR = 8.0
"""The search begins with scales so far apart."""
SMALLEST = 1e-6
"""Scale."""
THROUGH = 0.01
"""An upload that does less than this share of what it would do without a rule has not got through."""
KNOWS = frozenset({Knowledge.OWN_DATA, Knowledge.COHORT_SIZE, Knowledge.DEFENSE})


class Adaptive(Attack):
    """``gamma U + lambda H``: U what the attack ``attack`` would upload, H the same clients' honest uploads.

    The recipe of Shejwalkar and Houmansadr (NDSS 2021, section IV): an attacker who knows the rule tries malicious uploads on
    a copy of it, among honest uploads of its own clients, and takes those that do most. It is theirs for any direction U and
    any rule, whether it filters, clips or aggregates:

    1. The simulated cohort: as many honest clients as a real one has (or ``stand_ins``), for whom the attacker's own stand,
       over and over with other negatives, and the crafted uploads at the real share. Where the defense has hooks on the
       clients' side, they act on the former and on H.
    2. A choice is worth ``s(gamma, lambda) = D(filter, aggregate) / D0``. For attacks with targets D is how far the targets'
       rows move along those of U, ``<G - G_honest, U> / |U|``, where G_honest is what the rule makes of the honest alone;
       for those that degrade how far all parameters move, ``|G - G_honest|``. D0 is the same for U as it is under the
       server's own sum or mean. With ``aim`` "base" more than 1 counts as 1: uploads are as long as the attack wants them.
    3. The search begins with the choice of the last time and tries, around the best so far, scales 8 times as large and
       small and the other mixes, then ``sqrt(8)`` times, and so on: the halving steps of the original, in the logarithm.
       While nothing gets through (``s < gamma / 100``) it tries ever smaller scales instead. Among equals the one nearest
       to U as it is counts.

    Where there is no defense it uploads what ``attack`` does, bit for bit (``aim`` "base").

    The attacker's copy of a rule with a memory remembers what it was shown alone, the simulated round of each search.
    Injected clients of an attack without data of their own have random profiles, as ``p2``: these stand for honest clients
    less well than real users do.

    The parameters of ``attack`` are its own defaults and ``params``; what protocols set for it does not reach it.
    """

    tunes: ClassVar[type[Attack]]

    card = AttackCard(
        name="adaptive",
        title="Adaptive: an attack tuned against the rule",
        paper="fedbench, after Shejwalkar and Houmansadr, NDSS 2021",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        knowledge=KNOWS,
        invents_users=True,
        notes="Not published: the test that a rule has to stand. Goal, clients, models and further knowledge are those of the"
        " attack that it tunes (here pieck-uea).",
    )

    class Params(Parameters):
        """Parameters."""

        attack: str = Field("pieck-uea", description="the attack that is tuned, one that comes with fedbench")
        params: dict[str, Any] = Field(
            {}, validate_default=True, description="parameters of it that differ from its defaults"
        )
        evaluations: int = Field(
            10, ge=4, le=1_000, description="runs of the rule in a search [ours; the original: until a step is 1e-5]"
        )
        every: int = Field(
            1, ge=1, description="rounds with malicious clients from one search to the next [original: 1]"
        )
        mixes: tuple[float, ...] = Field(
            (0.0, 1.0), min_length=1, description="values of lambda that are tried [ours; the original has none]"
        )
        largest: float = Field(20.0, ge=1, description="largest gamma [the original's code cannot pass 20]")
        aim: Literal["most", "base"] = Field(
            "most",
            description="as much as can be [original], or what the attack would do to a server without a rule",
        )
        stand_ins: int | None = Field(
            None, ge=1, description="honest clients of the simulated cohort; None: as many as a real one has"
        )
        profile_size: int = Field(
            30, ge=1, description="items of an injected client's random profile, where the attack has none [as p2: 30]"
        )

        @field_validator("params")
        @classmethod
        def _what_differs(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
            if "attack" not in info.data:  # it is no text
                return value
            base = base_of(info.data["attack"])
            where = f"attack 'adaptive': attack {info.data['attack']!r}"
            return parse_parameters(base.Params, value, where).model_dump(mode="json", exclude_defaults=True)

        @field_validator("mixes")
        @classmethod
        def _between(cls, value: tuple[float, ...]) -> tuple[float, ...]:
            if min(value) < 0 or max(value) > 1:
                raise ValueError("must be from 0 to 1")
            return value

    params: Adaptive.Params

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self.inner = self.tunes(self.tunes.Params(**self.params.params))
        self.public_fraction = self.inner.public_fraction
        self.choice, self._wait = AS_IT_IS, 0

    @classmethod
    def for_params(cls, params: Any) -> type[Attack]:
        return _around(params.attack)

    @classmethod
    def tuned(cls, params: Any) -> list[Any]:
        base = base_of(params.attack)
        return [base.card.version, identifying(base.Params(**params.params))]

    def start(self, view: AttackerView) -> None:
        self.inner.start(self._narrowed(view))

    def profiles(self, view: AttackerView) -> Profiles:
        made = self.inner.profiles(self._narrowed(view))
        if made is not None:
            return made
        # The attack draws as it would without a wrapper.
        before = view.generator.get_state()
        made = random_profiles(view, self.params.profile_size)
        view.generator.set_state(before)
        return made

    def craft(self, view: AttackerView) -> Updates:
        upload = self.inner.craft(self._narrowed(view))
        view.honest()  # what the federation holds of the clients follows their own data
        honest = upload if self._wait and not self.choice[1] else view.simulation.honest()
        if not self._wait and self._search(view, upload, honest):
            self._wait = self.params.every
        self._wait = max(self._wait - 1, 0)
        return mixed(upload, honest, self.choice, view.num_items)

    def _search(self, view: AttackerView, upload: Updates, honest: Updates) -> bool:
        """Choose scale and mix anew; False where the attack uploads nothing that could be scaled."""
        simulation, m, targeted = view.simulation, len(view.clients), self.card.goal != Goal.DEGRADE
        wanted = upload.sum_rows(view.num_items, view.embedding_size)[view.targets] if targeted else None
        if wanted is not None and not bool(wanted.any()):
            return False
        real = max(1, view.cohort_size - m)
        count = self.params.stand_ins or real
        crafting = torch.arange(m, device=view.device) < max(1, min(m, round(m * count / real)))
        upload, honest = (written_out(each.keep(crafting)) for each in (upload, honest))
        simulation.begin(count)
        without = simulation.gradient(None)
        plain = moved(
            simulation.gradient(upload, ruled=False), simulation.gradient(None, ruled=False), wanted, view.targets
        )
        if not plain > 0:
            return False

        def worth(choice: Choice) -> float:
            crafted = mixed(upload, honest, choice, view.num_items)
            value = moved(simulation.gradient(crafted), without, wanted, view.targets) / plain
            return min(value, 1.0) if self.params.aim == "base" else value

        p = self.params
        enough = 1.0 if p.aim == "base" else math.inf
        # One of them was on honest clients alone, and one is to be remembered.
        self.choice = searched(worth, self.choice, p.mixes, p.largest, p.evaluations - 2, enough)
        simulation.gradient(mixed(upload, honest, self.choice, view.num_items), remembered=True)
        return True

    def _narrowed(self, view: AttackerView) -> AttackerView:
        return view.narrowed(self.inner.card)


def base_of(name: str) -> type[Attack]:
    """The class of the attack ``name``, if it is one that can be tuned; raises :class:`UserError` that says why not."""
    where = f"attack 'adaptive': parameter attack = {name!r}"
    cls = ATTACKS.get(name)
    if name == "adaptive" or not ATTACKS.builtin(name):
        raise UserError(f"{where} must be another that comes with fedbench.")
    if cls.card.channel != Channel.GRADIENT:
        raise UserError(
            f"{where} has channel {cls.card.channel.value!r}: it makes no uploads of its own; name one of 'gradient'."
        )
    return cls


@functools.cache
def _around(name: str) -> type[Adaptive]:
    """The wrapper with the goal, the clients and the models of the attack ``name``, and its knowledge beside its own."""
    base = base_of(name)
    theirs = base.card
    card = replace(
        Adaptive.card,
        goal=theirs.goal,
        knowledge=KNOWS | theirs.knowledge,
        clients=theirs.clients,
        models=theirs.models,
        invents_users=theirs.invents_users,
    )
    content = {"card": card, "tunes": base, "__module__": __name__, "__doc__": Adaptive.__doc__}
    return type(Adaptive.__name__, (Adaptive,), content)


Adaptive.tunes = base_of("pieck-uea")


def written_out(updates: Updates) -> Updates:
    """The same with rows and dense gradients made once, for all that is tried."""
    rows = (updates.all_rows(),) if updates.rows else ()
    return replace(updates, rows=rows, dense=DenseGradients.of(updates.dense.stacked()))


def mixed(upload: Updates, honest: Updates, choice: Choice, num_items: int) -> Updates:
    """``gamma upload + lambda honest``, client by client; ``upload`` itself where that is what it is.

    The numbers of samples are the upload's, with a part of the honest one those of an honest client.

    Args:
        upload, honest: of the same clients in the same order. choice: gamma and lambda. num_items: M.
    """
    gamma, part = choice
    if choice == AS_IT_IS:
        return upload
    scaled = upload.scaled(upload.weights.new_full((len(upload.clients),), gamma))
    if not part:
        return scaled
    other = honest.scaled(honest.weights.new_full((len(honest.clients),), part))
    both = replace(scaled, rows=(*scaled.rows, *other.rows))
    rows = (coalesced(both.all_rows(), num_items),) if both.rows else ()
    common = other.common
    if scaled.common is not None:
        common = Common(scaled.common.gradient, scaled.common.share + (0 if common is None else common.share))
    mine, theirs = scaled.dense.stacked(), other.dense.stacked()
    dense = DenseGradients.of({name: value + theirs[name] for name, value in mine.items()})
    return Updates(upload.clients, rows, dense, honest.weights, common)


def moved(after: PublicParams, before: PublicParams, wanted: torch.Tensor | None, targets: torch.Tensor) -> float:
    """How far the gradient ``after`` is from ``before``: along ``wanted``, or over all parameters.

    Args:
        after, before: of the server. wanted: float32 [T, d], a gradient of the targets; None: any direction.
        targets: int64 [T].
    """
    if wanted is not None:
        change = (after.items[targets] - before.items[targets]).double()
        return float((change * wanted).sum() / wanted.double().norm())
    changes = [after.items - before.items, *(value - before.dense[name] for name, value in after.dense.items())]
    return math.sqrt(sum(float(change.double().square().sum()) for change in changes))


def searched(
    worth: Callable[[Choice], float],
    start: Choice,
    mixes: Sequence[float],
    largest: float,
    evaluations: int,
    enough: float = math.inf,
) -> Choice:
    """The choice of the largest worth that so many evaluations find; among equals the nearest to ``(1, 0)``.

    Args:
        worth: of a choice; not a number counts as the least. start: where to begin. mixes: values of lambda.
        largest: gamma. evaluations: at most. enough: a worth at which nothing better is looked for.
    """
    found: dict[Choice, float] = {}

    def best() -> Choice:
        return max(found, key=lambda choice: (found[choice], -abs(math.log(choice[0])) - choice[1]))

    def tried(choice: Choice) -> None:
        if choice not in found and len(found) < evaluations:
            value = worth(choice)
            # To six digits: what differs by rounding is the same.
            found[choice] = float(f"{value:.6g}") if math.isfinite(value) else -math.inf

    factor = FIRST_FACTOR
    tried(AS_IT_IS)
    tried(start)
    while len(found) < evaluations and found[best()] < enough:
        gamma, part = best()
        through = any(value >= THROUGH * scale for (scale, _), value in found.items())
        if factor < FIRST_FACTOR and not through:
            shortest = min(scale for scale, _ in found)
            if shortest == SMALLEST:
                break
            tried((max(shortest / FIRST_FACTOR, SMALLEST), part))
            continue
        for scale in (gamma * factor, gamma / factor):
            tried((min(max(scale, SMALLEST), largest), part))
        for mix in mixes:
            tried((gamma, mix))
        factor = math.sqrt(factor)
        if factor < 1.001:
            break
    return best()
