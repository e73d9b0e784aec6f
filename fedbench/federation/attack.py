"""What every attack is: a card, parameters, and how its clients' uploads are made."""

from __future__ import annotations

from typing import Any, ClassVar

from fedbench.entries.cards import AttackCard, NoParameters, Parameters
from fedbench.errors import UserError
from fedbench.federation.images import ItemImages, ReplacedImages
from fedbench.federation.updates import Updates, no_updates
from fedbench.federation.view import AttackerView, Profiles


class Attack:
    """Base of all attacks. A run makes one instance; whatever its clients remember lives in it.

    Override ``craft`` (channel *gradient*), ``profiles`` (channel *profile*: the engine then trains the fake users as
    honest clients), or both when the attack needs data of its own; ``perturb`` (channel *image*) to show other images,
    with ``craft`` in channel *image+gradient*.
    Everything it may use comes from the view.
    """

    card: ClassVar[AttackCard]

    class Params(NoParameters):
        """Replaced by each attack: its parameters, each with its source."""

    def __init__(self, params: Parameters) -> None:
        self.params = params

    tunes: ClassVar[type[Attack] | None] = None
    """The class of another attack whose uploads it is made of."""

    @classmethod
    def for_params(cls, params: Any) -> type[Attack]:
        """The class that a run with these parameters makes: another than this one where the card depends on them."""
        return cls

    @classmethod
    def tuned(cls, params: Any) -> list[Any]:
        """Version and parameters of the attack that it tunes: they tell experiments apart, too."""
        return []

    public_fraction: float = 0.0
    """Share of every user's training interactions that is public, for attacks that know ``public_interactions``.

    Of an isolated attack it is the parameter of this name."""

    @property
    def eps(self) -> float:
        """The parameter of this name: how far its images may be from the original ones, in steps of 8-bit pixels.

        Attacks that show images must have it. The engine reads it before the first epoch and checks every image by it.

        Raises:
            UserError: there is no such parameter.
        """
        found = getattr(self.params, "eps", None)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise UserError(
                f"attack {self.card.name!r} shows images, so its Params must have a number eps: how far a pixel may move"
            )
        return float(found)

    def start(self, view: AttackerView) -> None:
        """Called once, before the first round. The view holds no parameters yet."""

    def profiles(self, view: AttackerView) -> Profiles | None:
        """Interactions that the malicious clients pretend to have, or None. Called once, after ``start``.

        Asked for where clients are injected, or the channel is *profile*; compromised ones have their own otherwise.
        """
        return None

    def craft(self, view: AttackerView) -> Updates:
        """The uploads of ``view.clients``, in that order; nothing, unless overridden.

        Called in every round that samples a malicious client, once the attack has started; not with channel *profile*.
        """
        return no_updates(view.clients, view.params.dense, view.embedding_size)

    def perturb(self, images: ItemImages, view: AttackerView) -> ReplacedImages | None:
        """Images of targets from this epoch on, or None, for those that it shows already.

        Called before every epoch once the attack has started (channels *image* and *image+gradient*), with models that
        read features.

        Args:
            images: the original ones of all items, which must not be changed in place.
            view: with the public parameters of that moment; none of the attacker's clients is in a round.
        """
        return None
