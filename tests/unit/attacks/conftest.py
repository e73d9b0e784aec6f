"""What tests of attacks share: the view of an attacker in a small round, without a federation around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from fedbench.entries.cards import AttackCard, Knowledge
from fedbench.federation.batch import Batch
from fedbench.federation.clients import TrainingRows, draw_negatives
from fedbench.federation.losses import Loss
from fedbench.federation.updates import Updates
from fedbench.federation.view import AttackerView, HonestStep, Profiles, PublicInteractions, RoundState, Surroundings
from fedbench.models import MODELS, PublicParams, Recommender

MakeView = Callable[..., AttackerView]


def _make_view(
    card: AttackCard,
    model: str | Recommender = "mf",
    m: int = 3,
    targets: Sequence[int] = (7,),
    *,
    num_items: int = 20,
    num_malicious: int | None = None,
    clients: Sequence[int] | None = None,
    in_round: bool = True,
    epoch: int = 1,
    round: int = 0,  # noqa: A002 - the view's own word
    learning_rate: float = 0.5,
    aggregation: str = "sum",
    embedding_size: int = 4,
    hidden: Sequence[int] = (5, 3),
    init_std: float = 0.5,
    params: PublicParams | None = None,
    own_data: Profiles | None = None,
    users: torch.Tensor | None = None,
    item_popularity: torch.Tensor | None = None,
    subgroup_items: Sequence[int] = (1, 4, 9),
    public_interactions: PublicInteractions | None = None,
    cohort_size: int = 10,
    malicious_per_round: float | None = None,
    honest_updates: Updates | None = None,
    purify: Callable[[torch.Tensor], torch.Tensor] | None = None,
    loss: str = "bce",
    seed: int = 0,
) -> AttackerView:
    """A view as the engine would make it; equal arguments give equal views, attack stream included.

    Args:
        card: the attack's, which decides what is granted.
        model: one at hand, or the name of one but ``"sasrec"``, with ``embedding_size``, ``hidden`` (not mf), ``init_std``,
            and features of length 6 where it reads any.
        m: sampled malicious clients; ``clients`` names them (default: the last m of ``num_malicious``, ascending).
        num_malicious: m_tot, default m + 2.
        in_round: False gives the view that ``start`` and ``profiles`` get.
        params: the public parameters (default: the model's own initial ones, plus a bias that is not zero).
        own_data: profiles of all malicious clients (default, for a card that knows them: 6 items each).
        users: float32 [m_tot, d], the malicious clients' embeddings for ``honest()`` (default: drawn).
        honest_updates: what the honest clients upload. purify: the server's. loss: of the malicious clients' own work.
    """
    if isinstance(model, str):
        cls = MODELS.get(model)
        values: dict[str, Any] = {"embedding_size": embedding_size, "init_std": init_std}
        if "hidden" in cls.Params.model_fields:
            values["hidden"] = tuple(hidden)
        recommender = cls(cls.Params(**values))
    else:
        recommender = model
    draw = torch.Generator().manual_seed(1000 + seed)
    if params is None:
        fresh = recommender.init_params(num_items, draw)
        dense = {name: value + 0.1 * torch.randn(value.shape, generator=draw) for name, value in fresh.dense.items()}
        features = None
        if recommender.reads_features:
            features = torch.randn(num_items, 6, generator=draw)
            dense |= recommender.init_feature_params(6, draw)
        params = PublicParams(fresh.items, dense, features)
    m = m if clients is None else len(clients)
    total = num_malicious if num_malicious is not None else (m + 2 if clients is None else max(clients) + 1)
    sampled = torch.arange(total - m, total) if clients is None else torch.tensor(list(clients))

    knows = card.knowledge
    if own_data is None and Knowledge.OWN_DATA in knows:
        chosen = torch.rand(total, num_items, generator=draw).argsort(dim=1)[:, : min(6, num_items // 2)]
        own_data = Profiles(torch.arange(total).repeat_interleave(chosen.shape[1]), chosen.sort(dim=1).values.flatten())
    if item_popularity is None:
        item_popularity = torch.randint(0, 50, (num_items,), generator=draw)
    if public_interactions is None:
        user, item = (torch.rand(8, num_items, generator=draw) < 0.2).nonzero(as_tuple=True)
        public_interactions = PublicInteractions(user, item, 8)
    if users is None:
        users = recommender.init_users(total, draw)

    class Own:
        """Honest work on ``own_data``."""

        def batch(self) -> Batch:
            return rows.select(sampled)

        def users(self) -> torch.Tensor:
            return users[sampled]

        def step(self) -> HonestStep:
            mine, batch = users[sampled], self.batch()
            return HonestStep(self.trained(batch), mine)

        def trained(self, batch: Batch, move: bool = False) -> Updates:
            step = recommender.local_step(params, users[batch.clients], batch, Loss(loss))
            return Updates(batch.clients, step.rows, step.dense, batch.size)

        def colluding(self, count: int) -> Updates:
            some = torch.randperm(total, generator=torch.Generator().manual_seed(seed))[:count]
            return self.trained(rows.select(some))

    if own_data is not None:
        order = torch.argsort(own_data.client * num_items + own_data.item)
        user, item = own_data.client[order], own_data.item[order]
        negatives = draw_negatives(user, item, total, num_items, 1, torch.Generator().manual_seed(seed))
        rows = TrainingRows.build(user, item, negatives, total, num_items, pairwise=loss == "bpr")

    surroundings = Surroundings(
        recommender,
        num_items,
        total,
        learning_rate,
        aggregation,
        torch.tensor(list(targets)),
        torch.device("cpu"),
        torch.Generator().manual_seed(seed),
    )
    state = RoundState(params, sampled, epoch, round, Own() if own_data is not None else None, honest_updates, purify)
    return AttackerView(
        card,
        surroundings,
        own_data=own_data,
        item_popularity=item_popularity,
        subgroup_items=torch.tensor(list(subgroup_items)),
        public_interactions=public_interactions,
        cohort_size=cohort_size,
        malicious_per_round=m if malicious_per_round is None else malicious_per_round,
        state=state if in_round else None,
    )


@pytest.fixture
def make_view() -> MakeView:
    """A function that makes an :class:`AttackerView`; see ``_make_view`` for its arguments."""
    return _make_view
