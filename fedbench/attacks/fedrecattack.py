"""FedRecAttack: approximate all users from a public share of their interactions, then lift the targets into their lists."""

from __future__ import annotations

import torch
from pydantic import Field

from fedbench.attacks.batches import described
from fedbench.attacks.demotion import turned_round, wish
from fedbench.attacks.uploads import target_updates
from fedbench.entries.cards import LATER, AttackCard, Channel, Goal, Knowledge, Parameters
from fedbench.errors import UserError
from fedbench.federation.attack import Attack
from fedbench.federation.clients import draw_negatives
from fedbench.federation.rows import FullRows
from fedbench.federation.updates import DenseGradients, Updates
from fedbench.federation.view import AttackerView

LIST_LENGTH = 10
"""Length of the recommendation lists that the attack aims at."""
NOISE_STD = 1e-7**0.5
"""Of every coordinate of an uploaded row: its covariance is 1e-7 I."""


class FedRecAttack(Attack):
    """One shared estimate of all N users, trained on public interactions, gives one gradient that the clients share out.

    Rong et al. (ICDE 2022), from the published code. In each round:

    1. ``U^`` [N, d] (from N(0, 0.01^2), warm from round to round) takes one epoch of Adam on the BPR loss, summed, of the
       public positives, each with a fresh negative; V is frozen.
    2. Each user's list is the top 10 by ``U^ V^T`` without its public items and the targets.
    3. ``L~ = sum_u sum_{t not public to u} l(s_ub - s_ut)``, ``l(x) = x`` for x >= 0, else ``e^x - 1``; b is the last item of
       the list for the first of the user's targets, the last but one for the second, and so on.
    4. ``G = dL~/dV`` [M, d] is what the malicious clients upload together. Each client has, from its first round on, the
       targets and ``items_limit - |T|`` other items, drawn with probability in proportion to ``|G_j + noise|``. The k-th
       client of a round that holds item j (k = 0, 1, ...) uploads ``G_j / |G_j| * clamp(|G_j| - k C, 0, C)`` plus noise: the
       clients share G out in pieces no longer than C. (The code subtracts what was uploaded with its noise of 3e-4; here the
       noise is left out of the remainder.)

    Readings: clients come one after the other, and a new one draws its items from what those before it have left of G, as
    in the code; without ``in_turn`` all draw from the whole of G. The code's noise has covariance 1e-7 I beside C = 1, so
    it is C times as long here, or as long as it is there without ``scaled_noise``.

    With ``public_fraction = 0`` there is no user to estimate and nothing is uploaded: the row "FedRecAttack" of ICDE'24.
    """

    card = AttackCard(
        name="fedrecattack",
        title="FedRecAttack",
        paper="Rong et al., ICDE 2022",
        goal=Goal.PROMOTE,
        channel=Channel.GRADIENT,
        knowledge=frozenset({Knowledge.PUBLIC_INTERACTIONS}),
        notes="ICDE 2024 ran it without public interactions (public_fraction = 0), which is no attack at all."
        " In version 1 clients drew items without regard to each other, and noise did not follow C.",
        version=2,
    )

    class Params(Parameters):
        """Parameters."""

        public_fraction: float = Field(
            0.01, ge=0, le=1, description="xi, public share of every user's training items, rounded up [ICDE'22: 0.01]"
        )
        items_limit: int = Field(
            60, ge=1, description="rows that a client may upload, targets included [ICDE'22 code: 60]"
        )
        row_limit: float | None = Field(
            None,
            gt=0,
            description="C, longest row; None: 0.01 / learning rate, so 1.0 at the 0.01 of ICDE'22 [ICDE'24's flag: 0.001]",
        )
        user_rate: float = Field(
            0.01, gt=0, description="Adam's rate for the estimated users [ICDE'22: 0.01; ICDE'24: 0.1]"
        )
        user_batch: int = Field(256, ge=1, description="users in a batch of that training [ICDE'22: 256]")

        in_turn: bool = Field(
            True,
            description="new clients draw items from what earlier ones left [ICDE'22 code: yes; version 1: no]",
            json_schema_extra=LATER,
        )
        scaled_noise: bool = Field(
            True,
            description="noise in proportion to C [the code has one C, 1.0; version 1: no]",
            json_schema_extra=LATER,
        )

    params: FedRecAttack.Params

    @property
    def public_fraction(self) -> float:  # type: ignore[override]
        return self.params.public_fraction

    def start(self, view: AttackerView) -> None:
        if self.params.public_fraction == 0:
            return
        public = view.public_interactions
        if not len(public.user):
            raise UserError("attack 'fedrecattack' found no public interaction; raise public_fraction.")
        order = torch.argsort(public.user * view.num_items + public.item)
        self._user, self._item = public.user[order], public.item[order]
        self._count = public.num_users
        self._known = torch.zeros(public.num_users, len(view.targets), dtype=torch.bool, device=view.device)
        match = self._item[:, None] == view.targets
        self._known[self._user[match.any(1)], match.int().argmax(1)[match.any(1)]] = True
        shape = (public.num_users, view.embedding_size)
        self._users = torch.randn(shape, generator=view.generator, device=view.device) * 0.01
        self._moments = (torch.zeros_like(self._users), torch.zeros_like(self._users))
        self._steps = 0
        self._items = torch.full((view.num_malicious, self.params.items_limit), -1, device=view.device)

    def craft(self, view: AttackerView) -> Updates:
        m, d = len(view.clients), view.embedding_size
        if self.params.public_fraction == 0:
            return target_updates(view, torch.zeros(m, len(view.targets), d, device=view.device))
        self._train_users(view)
        gradient = self._gradient(view)
        self._choose_items(view, gradient)
        return self._share_out(view, gradient)

    def _train_users(self, view: AttackerView) -> None:
        """One epoch over the users in random order: Adam moves all rows in every batch, as its moments are dense."""
        negative = draw_negatives(self._user, self._item, self._count, view.num_items, 1, view.generator).squeeze(1)
        batch = torch.randperm(self._count, generator=view.generator, device=view.device) // self.params.user_batch
        of_pair = batch[self._user]
        dense = view.params.dense
        for number in range(-(-self._count // self.params.user_batch)):
            pair = (of_pair == number).nonzero().squeeze(1)
            with torch.enable_grad():
                users = self._users.detach().requires_grad_()
                mine = users[self._user[pair]]
                plus = view.model.logits(dense, mine, view.params.described(self._item[pair]))
                minus = view.model.logits(dense, mine, view.params.described(negative[pair]))
                (g,) = torch.autograd.grad(torch.nn.functional.softplus(minus - plus).sum(), users)
            self._steps += 1
            first, second = self._moments
            first.mul_(0.9).add_(g, alpha=0.1)
            second.mul_(0.999).addcmul_(g, g, value=0.001)
            scale = self.params.user_rate / (1 - 0.9**self._steps)
            self._users = self._users - scale * first / ((second / (1 - 0.999**self._steps)).sqrt() + 1e-8)

    def _gradient(self, view: AttackerView) -> torch.Tensor:
        """G, float32 [M, d]."""
        items, targets = view.params.items, view.targets
        lists = torch.empty(
            self._count, min(LIST_LENGTH, view.num_items - len(targets)), dtype=torch.int64, device=view.device
        )
        chunk = max(1, 2**22 // view.num_items)
        starts = torch.searchsorted(
            self._user, torch.arange(0, self._count + chunk, chunk, device=view.device)
        ).tolist()
        for number, begin in enumerate(range(0, self._count, chunk)):
            scores = view.model.score_all(view.params, self._users[begin : begin + chunk])
            known = slice(starts[number], starts[number + 1])
            scores[self._user[known] - begin, self._item[known]] = -torch.inf
            scores[:, targets] = -torch.inf
            lists[begin : begin + chunk] = scores.topk(lists.shape[1], dim=1).indices
        wanted = ~self._known
        # The k-th of a user's open targets is set against the k-th item from the end of its list.
        place = (lists.shape[1] - wanted.cumsum(1)).clamp(0, lists.shape[1] - 1)
        user, t = wanted.nonzero(as_tuple=True)
        rival = lists.gather(1, place)[user, t]
        with torch.enable_grad():
            above = items[rival].detach().requires_grad_()
            target = items[targets[t]].detach().requires_grad_()
            own = self._users[user]
            first, second = (
                view.model.logits(view.params.dense, own, described(view.params, rows, ids))
                for rows, ids in ((above, rival), (target, targets[t]))
            )
            x = wish(self) * (first - second)
            loss = torch.where(x >= 0, x, torch.expm1(x.clamp(max=0))).sum()
            of_rival, of_target = torch.autograd.grad(loss, [above, target])
        return torch.zeros_like(items).index_add_(0, rival, of_rival).index_add_(0, targets[t], of_target)

    def _choose_items(self, view: AttackerView, gradient: torch.Tensor) -> None:
        """Each new client's items, fixed from now on."""
        new = self._items[view.clients, 0] < 0
        if not bool(new.any()):
            return
        self._items[view.clients[new], : len(view.targets)] = view.targets
        free = min(self.params.items_limit, view.num_items) - len(view.targets)
        if free <= 0:
            return
        place = slice(len(view.targets), len(view.targets) + free)
        if not self.params.in_turn:
            chance = self._chance(view, gradient).expand(int(new.sum()), -1)
            self._items[view.clients[new], place] = torch.multinomial(chance, free, generator=view.generator)
            return
        length, left = gradient.norm(dim=1), gradient.clone()
        for client, fresh in zip(view.clients, new.tolist(), strict=True):
            if fresh:
                chance = self._chance(view, left)
                self._items[client, place] = torch.multinomial(chance, free, generator=view.generator)
            held = self._items[client]
            held = held[held >= 0]
            rest = (left[held].norm(dim=1) - self._limit(view)).clamp(min=0)
            left[held] = gradient[held] * (rest / length[held].clamp(min=1e-12))[:, None]

    def _chance(self, view: AttackerView, gradient: torch.Tensor) -> torch.Tensor:
        """float32 [M], with which an item is drawn: ``|G_j + noise|``, 0 for targets."""
        noise = torch.randn(gradient.shape, generator=view.generator, device=view.device) * self._noise(view)
        return (gradient + noise).norm(dim=1).index_fill(0, view.targets, 0.0)

    def _limit(self, view: AttackerView) -> float:
        """C."""
        return self.params.row_limit if self.params.row_limit is not None else 0.01 / view.learning_rate

    def _noise(self, view: AttackerView) -> float:
        """Standard deviation of every coordinate of the noise."""
        return NOISE_STD * self._limit(view) if self.params.scaled_noise else NOISE_STD

    def _share_out(self, view: AttackerView, gradient: torch.Tensor) -> Updates:
        limit = self._limit(view)
        held = self._items[view.clients]
        client, column = (held >= 0).nonzero(as_tuple=True)
        item = held[client, column]
        ordered, order = torch.sort(item, stable=True)
        starts = torch.searchsorted(ordered, torch.arange(view.num_items, device=view.device))
        turn = torch.empty_like(item)
        turn[order] = torch.arange(len(item), device=view.device) - starts[ordered]
        length = gradient.norm(dim=1)
        piece = (length[item] - turn * limit).clamp(0, limit) / length[item].clamp(min=1e-12)
        rows = gradient[item] * piece[:, None]
        rows = rows + torch.randn(rows.shape, generator=view.generator, device=view.device) * self._noise(view)
        dense = {name: value.new_zeros(len(held), *value.shape) for name, value in view.params.dense.items()}
        weights = (held >= 0).sum(1).float()
        return Updates(view.clients, (FullRows(client, item, rows),), DenseGradients.of(dense), weights)


class DemotingRecAttack(FedRecAttack):
    """fedrecattack with ``l(s_ut - s_ub)`` in step 3: a target is to fall behind the last items of the users' lists."""

    card = turned_round(FedRecAttack.card)
