"""LightGCN on the graph that a client knows: its own interactions."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from fedbench.entries.cards import ModelCard
from fedbench.federation.batch import Batch
from fedbench.federation.model import Histories, PublicParams
from fedbench.models.perceptron import PerceptronParams, PerceptronRecommender
from fedbench.models.star import Star, propagated


class PoolingParams(PerceptronParams):
    """Hyper-parameters."""

    pool: Literal["sum", "mean"] = Field(
        "sum",
        description="embeddings before and after the layer: added up [TOIS, eq. 6], or their mean [code of the group]",
    )


class LightGraphConvolution(PerceptronRecommender):
    """``s_uj = h . MLP([u ; v_j]) + b_h`` of embeddings after one light graph convolution (He et al. 2020; federated: TOIS).

    A client's graph is a star: itself and its n_u positives V_u, each of degree 1, as a client sees nobody else (degrees
    from the server would tell it how popular an item is):

        u = u^0 + u^1,      u^1 = n_u^(-1/2) sum_(j in V_u) v_j^0
        v_j = v_j^0 + v_j^1,    v_j^1 = n_u^(-1/2) u^0 for j in V_u, else 0

    (eqs. 5, 6; ``pool="mean"`` halves both, those without neighbours too). In training V_u is what a client's batch holds as
    positive, whatever else drew it as a negative; repeats count once. So too for users that an attack makes up. For ranking
    :meth:`represent` gives u by a user's history, and items outside of it enter as ``v_j^0``: :meth:`logits` and
    :meth:`score_all` take users so represented, and items that are not theirs (theirs are not ranked).
    """

    card = ModelCard(
        name="lightgcn",
        title="Light graph convolution (Fed-LightGCN)",
        paper="He et al., SIGIR 2020",
        notes="Every client convolves over its own interactions, one layer deep; the head is a perceptron, as in TOIS.",
    )

    class Params(PoolingParams):
        """Hyper-parameters."""

    params: PoolingParams

    @property
    def _pool(self) -> float:
        return 1.0 if self.params.pool == "sum" else 0.5

    def represent(self, params: PublicParams, users: torch.Tensor, histories: Histories) -> torch.Tensor:
        """float32 [n, d]: ``u^0 + u^1``, or half of it, of n users with what they have interacted with."""
        looks = self._looks(params) if self.reads_features else params.items[:, :0]
        return propagated(users, self._leaves(params, looks), histories.starts, histories.item, self._pool)

    def _star(self, users: torch.Tensor, batch: Batch) -> Star:
        return Star.of(batch, users, self._pool)

    def _pooled(self, items: torch.Tensor) -> torch.Tensor:
        return items if self._pool == 1 else self._pool * items
