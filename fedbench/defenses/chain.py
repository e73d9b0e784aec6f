"""Several defenses as one, as a scenario joins them with ``+``."""

from __future__ import annotations

from dataclasses import replace

import torch

from fedbench.entries.cards import DefenseCard, NoParameters
from fedbench.federation.batch import Batch
from fedbench.federation.defense import ClientRegularization, Defense, ServerView, card_of
from fedbench.federation.model import LocalStep, PublicParams
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import Updates


class Chain(Defense):
    """Several defenses as one: regularizers add up, the last aggregator wins, everything else runs in order.

    Args:
        parts: the defenses in the order of ``a+b``.
    """

    def __init__(self, parts: list[Defense]) -> None:
        super().__init__(NoParameters())
        self.parts = parts
        for part in parts:
            part.joined(parts)
        strict = [part.on_flag for part in parts if part.on_flag != "use-purified"]
        self.on_flag = strict[-1] if strict else "use-purified"
        self.keeps_params = any(part.keeps_params for part in parts)
        cards = [card_of(part) for part in parts]
        self.card = DefenseCard(
            name="+".join(card.name for card in cards),
            title=", then ".join(card.title for card in cards),
            paper="; ".join(card.paper for card in cards),
            family="+".join(dict.fromkeys(card.family for card in cards)),
            knowledge=frozenset().union(*(card.knowledge for card in cards)),
            assumes="; ".join(dict.fromkeys(card.assumes for card in cards if card.assumes != "nothing")) or "nothing",
        )

    def fresh(self) -> Chain:
        return Chain([part.fresh() for part in self.parts])

    def regularize(
        self, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> ClientRegularization | None:
        found = [
            each
            for part in self.parts
            if (each := part.regularize(params, users, batch, _for(part, server))) is not None
        ]
        if not found:
            return None
        extra = [each.extra for each in found if each.extra is not None]
        return ClientRegularization(
            _added([each.rows for each in found]),
            _added([each.users for each in found]),
            FullRows(*(torch.cat(parts) for parts in zip(*((e.client, e.item, e.values) for e in extra), strict=True)))
            if extra
            else None,
        )

    def client_update(
        self, local: LocalStep, params: PublicParams, users: torch.Tensor, batch: Batch, server: ServerView
    ) -> LocalStep:
        for part in self.parts:
            local = part.client_update(local, params, users, batch, _for(part, server))
        return local

    def purify(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        for part in self.parts:
            pixels = part.purify(pixels, generator)
        return pixels

    def see_images(self, pixels: torch.Tensor) -> None:
        """Every part sees the original images, also one that later receives what others have purified."""
        for part in self.parts:
            part.see_images(pixels)

    def flags(self, similarity: torch.Tensor, known_clean: bool) -> torch.Tensor | None:
        """Whatever one of the parts flags; the similarity is that of the whole chain."""
        found = [each for part in self.parts if (each := part.flags(similarity, known_clean)) is not None]
        return torch.stack(found).any(0) if found else None

    def filter(self, updates: Updates, server: ServerView) -> Updates:
        for part in self.parts:
            before, updates = updates, part.filter(updates, _for(part, server))
            if server.notes is not None:
                server.notes.filtered.append((card_of(part).name, before, updates))
        return updates

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams | None:
        for part in reversed(self.parts):
            if type(part).aggregate is not Defense.aggregate:
                return part.aggregate(updates, _for(part, server))
        return None


def _for(part: Defense, server: ServerView) -> ServerView:
    """What one part of a chain may use: not what only another one declares."""
    return server if "malicious_ratio" in card_of(part).knowledge else replace(server, malicious_ratio=None)


def _added(terms: list[torch.Tensor | None]) -> torch.Tensor | None:
    there = [term for term in terms if term is not None]
    return torch.stack(there).sum(0) if there else None
