"""Robust aggregation: what every rule shares, and the two scopes in which it can be applied.

Scope ``item`` (ICDE'24 code): the rule is applied to the rows of each item by themselves, c_j rows from the c_j clients that
touched item j, and to each dense tensor by itself, over all n clients (one that sent none counts with zeros).
Scope ``client`` (AAAI'23, and general federated learning): the rule is applied to the n whole updates, vectors of
M d + (dense) coordinates that are zero where a client touched nothing.

A rule replaces the sum. It finds a typical gradient and multiplies it by the number of gradients that it stands for, as the
published code does, so that a rule that drops nothing is exactly the sum. Under a protocol that averages, the result
is divided by n, as the undefended sum is. Where the average is weighted by numbers of samples, rules that choose or weight
whole clients keep these weights among what they choose; medians and trimmed means do not, for ranks and weights do not mix.

A gradient that all clients share (:class:`Common`) is left out of what the rules compare, and added to their result: nearly
all of them are equivariant to translations.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field

from fedbench.defenses.coordinates import Column
from fedbench.defenses.grouped import Group, RowsByItem
from fedbench.entries.cards import LATER, Parameters
from fedbench.federation.defense import Defense, Notes, ServerView
from fedbench.federation.model import PublicParams
from fedbench.federation.updates import DenseGradients, Updates

GIVEN = "malicious_ratio"
RARE = 0.01
"""Up to this share of rounds with too few clients, such as the last of an epoch, is not worth a warning."""
ASSUMES_SHARE = "share of malicious clients: given (the true one) or assumed_ratio"


class ScopeParameters(Parameters):
    """Parameters of every rule."""

    scope: Literal["item", "client"] = Field(
        "item", description="rule over an item's rows [ICDE'24 code], or over whole updates [AAAI'23]"
    )
    parts: Literal["all", "items", "dense"] = Field(
        "all",
        description="gradients that the rule aggregates, others as without it; dense: on ncf this gives ICDE'24's numbers",
        json_schema_extra=LATER,
    )


class ShareParameters(ScopeParameters):
    """Parameters of rules that must know how many attackers there may be."""

    assumed_ratio: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of malicious clients that the rule assumes; None: the scenario's true ratio [ICDE'24 code]",
    )


class RobustAggregation(Defense):
    """Base of the rules.

    f, the assumed number of attackers among c gradients, is floor(c share) in item scope [ICDE'24
    code] and ceil(n share) in client scope [AAAI'23], and at most (c - 1) / 2.
    """

    params: ScopeParameters
    sees_rejected = False
    """Whether it looks at uploads that a filter has dropped."""
    chooses = False
    """Whether, over whole updates, it leaves clients out."""
    needs: tuple[int, int] = (2, 1)
    """(a, b): among c gradients of which f are an attacker's it is made for c >= a f + b, and there its guarantee holds."""

    def __init__(self, params: Parameters) -> None:
        super().__init__(params)
        self._rounds = self._short = 0
        self._example = ""

    def aggregate(self, updates: Updates, server: ServerView) -> PublicParams:
        usable = updates.usable()
        if not bool(usable.all()):
            # Distances to what is not a number say nothing: nobody honest sends it, and it would void every rule.
            updates = updates.keep(usable)
        parts = self.params.parts
        if not self.sees_rejected or self.params.scope == "item" or parts != "all":
            updates = updates.settled()
        updates = updates.relative()
        num_items, size = server.params.items.shape
        n = len(updates.clients)
        empty = PublicParams(
            server.params.items.new_zeros(num_items, size),
            {name: torch.zeros_like(value) for name, value in server.params.dense.items()},
        )
        if not n:
            return empty
        share = self.share(server) * (updates.mixed or 1)
        self._count(n, share)
        shared, updates = updates.common, replace(updates, common=None)
        # A number of samples that is negative would turn the mean around.
        weights = updates.weights.nan_to_num(0, 0, 0).clamp(min=0) if server.aggregation == "weighted" else None
        seen = updates
        if parts == "items":
            seen, empty = replace(updates, dense=DenseGradients.of({})), PublicParams(empty.items, {})
        elif parts == "dense":
            seen = replace(updates, rows=())
        if self.params.scope == "client":
            f = min(math.ceil(n * share - 1e-9), (n - 1) // 2)
            # Of uploads that were mixed, those left out are nobody's.
            total = self.over_clients(seen, empty, f, weights, server.notes if updates.mixed is None else None)
        else:
            total = self.over_items(seen, empty, share)
        # The rest is summed or averaged as without a rule.
        rest = updates if weights is None else updates.scaled(weights * (n / weights.sum().clamp(min=1e-30)))
        if parts == "items":
            total = PublicParams(total.items, dict(rest.dense.total()))
        elif parts == "dense":
            total = PublicParams(rest.sum_rows(num_items, size), total.dense)
        if shared is not None:
            total = PublicParams(total.items + n * shared.gradient, total.dense)
        if server.aggregation == "sum":
            return total
        return PublicParams(total.items / n, {name: value / n for name, value in total.dense.items()})

    def _count(self, n: int, share: float) -> None:
        """Note whether a round has fewer clients than the rule is made for, before f is cut to what it can bear."""
        a, b = self.needs
        self._rounds += 1
        # By item the numbers of rows differ: what no number of them can mend is what counts.
        size, f = (
            (n, math.ceil(n * share - 1e-9)) if self.params.scope == "client" else (10**6, math.floor(10**6 * share))
        )
        if f > 0 and size < a * f + b:
            self._short += 1
            self._example = f"{n} clients and f = {f}" if self.params.scope == "client" else f"a share of {share:g}"

    def warnings(self) -> Sequence[str]:
        if self._short < RARE * self._rounds or not self._short:
            return ()
        a, b = self.needs
        return (
            f"{self.card.name} is made for n >= {a} f + {b} clients, f of them malicious; {self._short:,} of {self._rounds:,}"
            f" rounds had fewer ({self._example}): there it is weaker than it is meant to be",
        )

    def share(self, server: ServerView) -> float:
        """The share of malicious clients that the rule assumes; 0 for rules that assume none."""
        if not isinstance(self.params, ShareParameters):
            return 0.0
        stated = self.params.assumed_ratio
        return stated if stated is not None else server.malicious_ratio or 0.0

    @abstractmethod
    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        """Item scope; ``empty`` holds zeros in the shape of the result."""

    @abstractmethod
    def over_clients(
        self, updates: Updates, empty: PublicParams, f: int, weights: torch.Tensor | None, notes: Notes | None
    ) -> PublicParams:
        """Client scope; ``weights`` float32 [n] are the clients' numbers of samples where the server averages by them.

        A rule that :attr:`chooses` writes whom it leaves out into ``notes``, when given.
        """


def assumed(count: torch.Tensor, share: float) -> torch.Tensor:
    """int64 [B]: f = floor(c share), at most (c - 1) / 2, of counts int64 [B]."""
    return torch.minimum(torch.floor(count * share + 1e-9).long(), (count - 1) // 2)


def _assumed_of(group: Group, share: float) -> torch.Tensor:
    return assumed(group.sizes, share).to(group.count.device, non_blocking=True)


class CoordinateRule(RobustAggregation):
    """A rule that looks at each coordinate by itself (median, trimmed mean)."""

    @abstractmethod
    def typical(self, column: Column, f: torch.Tensor) -> torch.Tensor:
        """float32 [B, d]: the typical value of each coordinate, for f int64 [B] assumed attackers."""

    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        rows = RowsByItem(updates, len(empty.items))
        for group in rows.groups(torch.inf):
            column = Column.of(group.values, group.count, group.count)
            total = self.typical(column, _assumed_of(group, share)) * group.count[:, None]
            empty.items.index_copy_(0, group.item, total)
        f = assumed(torch.full((1,), len(updates.clients)), share)
        return replace(empty, dense=self._dense(updates, f.to(empty.items.device, non_blocking=True)))

    def over_clients(
        self, updates: Updates, empty: PublicParams, f: int, weights: torch.Tensor | None, notes: Notes | None
    ) -> PublicParams:
        n = len(updates.clients)
        rows = RowsByItem(updates, len(empty.items))
        for group in rows.groups(torch.inf):
            everybody = torch.full_like(group.count, n)
            column = Column.of(group.values, group.count, everybody)
            empty.items.index_copy_(0, group.item, self.typical(column, torch.full_like(everybody, f)) * n)
        return replace(empty, dense=self._dense(updates, torch.full((1,), f, device=empty.items.device)))

    def _dense(self, updates: Updates, f: torch.Tensor) -> dict[str, torch.Tensor]:
        result = {}
        for name, value in updates.dense.stacked().items():
            column = Column.whole(value.flatten(1))
            result[name] = self.typical(column, f).view(value.shape[1:]) * len(value)
        return result


class WeightingRule(RobustAggregation):
    """A rule that gives each gradient a factor, found from inner products alone (Krum, geometric median, FoolsGold, DnC).

    The gradients themselves, which may be long, are only read to make the Gram matrix and to be summed with their factors.
    """

    @abstractmethod
    def factors(self, gram: torch.Tensor, there: torch.Tensor, count: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
        """The factor of each gradient; factors of 1 are the plain sum.

        Args:
            gram: float [B, C, C], inner products, 0 in padding. there: bool [B, C]. count, f: int64 [B].

        Returns:
            float [B, C]; what stands in padding is not read.
        """

    def over_items(self, updates: Updates, empty: PublicParams, share: float) -> PublicParams:
        rows = RowsByItem(updates, len(empty.items))
        for group in rows.groups(pairwise=True):
            gram = torch.bmm(group.values, group.values.transpose(1, 2))
            factors = self.factors(gram, group.there, group.count, _assumed_of(group, share))
            total = torch.bmm(factors.to(group.values.dtype)[:, None, :], group.values).squeeze(1)
            empty.items.index_copy_(0, group.item, total)
        return replace(empty, dense=self._dense(flat_dense(updates), empty, share))

    def _dense(self, flat: dict[str, torch.Tensor], empty: PublicParams, share: float) -> dict[str, torch.Tensor]:
        """Each dense tensor by itself, all of them as one batch."""
        if not flat:
            return {}
        grams = dense_grams(flat)
        there = torch.ones_like(grams[:, :, 0], dtype=torch.bool)
        n = torch.full((len(grams),), grams.shape[1], device=grams.device)
        factors = self.factors(grams, there, n, assumed(n, share))
        return {
            name: (own.to(value.dtype) @ value).view_as(empty.dense[name])
            for own, (name, value) in zip(factors, flat.items(), strict=True)
        }

    def gram(self, updates: Updates, empty: PublicParams) -> torch.Tensor:
        """float64 [n, n], by ascending client id: inner products of what the rule looks at in client scope."""
        return client_gram(updates, len(empty.items))

    def over_clients(
        self, updates: Updates, empty: PublicParams, f: int, weights: torch.Tensor | None, notes: Notes | None
    ) -> PublicParams:
        gram = self.gram(updates, empty)
        n = len(gram)
        there = torch.ones(1, n, dtype=torch.bool, device=gram.device)
        count, assumed_attackers = (torch.full((1,), each, device=gram.device) for each in (n, f))
        found = self.factors(gram[None], there, count, assumed_attackers)[0]
        factors = torch.empty_like(found)
        factors[torch.argsort(updates.clients)] = found
        if notes is not None and self.chooses:
            notes.left_out.append((self.card.name, updates.clients[factors == 0]))
        if updates.rejected is not None:
            kept = factors.masked_fill(updates.rejected, 0.0)
            factors = torch.where(kept.any(), kept * (factors.sum() / kept.sum().clamp(min=1e-30)), factors)
        if weights is not None:
            factors = factors * weights
            factors = factors * (n / factors.sum().clamp(min=1e-30))
        return weighted_sum(updates, factors.to(updates.weights.dtype), empty)


def client_gram(updates: Updates, num_items: int) -> torch.Tensor:
    """float64 [n, n]: inner products of whole updates, by ascending client id, so that ties go to the lowest one.

    No update is ever laid out over all items. Only pairs of clients that touched the same item contribute: the sum over items
    of c_j^2 products instead of n^2 M d. Of mixed updates, which all have the same items, a piece of items is one product.
    """
    n = len(updates.clients)
    gram = torch.zeros(n * n, dtype=torch.float64, device=updates.clients.device)
    together = torch.zeros(n, n, dtype=torch.float64, device=gram.device)
    for group in RowsByItem(updates, num_items).groups(pairwise=True):
        if updates.mixed is not None and bool((group.sizes == n).all()):
            flat = group.values.transpose(0, 1).flatten(1)
            together += flat @ flat.T
            continue
        products = torch.bmm(group.values, group.values.transpose(1, 2))
        pair = group.client[:, :, None] * n + group.client[:, None, :]
        gram.index_add_(0, pair.flatten(), products.flatten().double())
    order = torch.argsort(updates.clients)
    gram = gram.view(n, n).index_select(0, order).index_select(1, order) + together
    for flat in flat_dense(updates).values():
        exact = flat.double()
        gram += exact @ exact.T
    return gram


def flat_dense(updates: Updates) -> dict[str, torch.Tensor]:
    """Name -> float32 [n, D]: the dense gradients as vectors, by ascending client id."""
    stacked = updates.dense.stacked()
    if not stacked:
        return {}
    order = torch.argsort(updates.clients)
    return {name: value.index_select(0, order).flatten(1) for name, value in stacked.items()}


def dense_grams(flat: dict[str, torch.Tensor]) -> torch.Tensor:
    """float64 [T, n, n]: inner products of the clients' gradients of each of T tensors, from :func:`flat_dense`."""
    return torch.stack([value.double() @ value.double().T for value in flat.values()])


def weighted_sum(updates: Updates, factors: torch.Tensor, empty: PublicParams) -> PublicParams:
    """The sum of all updates, each times its client's factor, float32 [n]."""
    chosen = updates.scaled(factors)
    return PublicParams(chosen.sum_rows(*empty.items.shape), dict(chosen.dense.total()))


def products(updates: Updates, params: PublicParams) -> torch.Tensor:
    """float64 [n]: inner products of whole updates with ``params``."""
    inner = torch.zeros_like(updates.weights, dtype=torch.float64)
    for block in updates.rows:
        inner.index_add_(0, block.client, (block.grad() * params.items.index_select(0, block.item)).sum(1).double())
    for name, value in updates.dense.stacked().items():
        inner += (value.flatten(1) @ params.dense[name].flatten()).double()
    return inner


def square_distances(gram: torch.Tensor) -> torch.Tensor:
    """``|x_i - x_k|^2`` from inner products [B, C, C]: symmetric to the last bit, 0 on the diagonal, never negative."""
    norms = gram.diagonal(dim1=1, dim2=2)
    distances = (norms[:, :, None] + norms[:, None, :]).sub_(gram, alpha=2)
    distances = torch.maximum(distances, distances.transpose(1, 2)).clamp_(min=0)
    distances.diagonal(dim1=1, dim2=2).zero_()
    return distances
