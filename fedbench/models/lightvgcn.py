"""Visually-aware LightGCN: what items look like passes through the client's graph too."""

from __future__ import annotations

from pydantic import Field

from fedbench.entries.cards import ModelCard
from fedbench.models.lightgcn import LightGraphConvolution, PoolingParams
from fedbench.models.visual import VisualParams


class VisualLightGraphConvolution(LightGraphConvolution):
    """``s_uj = h . MLP([u ; v_j ; z_j]) + b_h`` with ``z_j = E phi_j`` and ``u^1 = n_u^(-1/2) sum_(j in V_u) (v_j^0 + z_j)``.

    The rest as in :class:`fedbench.models.lightgcn.LightGraphConvolution` (TOIS, eqs. 4 to 6). E is reached in two ways:
    through z_j in the head, and through u^1 from all of a client's positives. z_j is not pooled.

    Features of images are much alike, so their sum over n_u items is about ``sqrt(n_u)`` times one of them after the
    graph's norm: features of length 4 drown the rest and all units of the perceptron die (ML-1M, protocol tois: NDCG@20 0
    from the second epoch; .016 and falling at 2; .032 at 1, the default).
    """

    card = ModelCard(
        name="lightvgcn",
        title="Visually-aware light graph convolution (Fed-LightVGCN)",
        paper="Manipulating Visually-aware Federated Recommender Systems and Its Countermeasures, TOIS",
        notes="Reads images of items. Every client convolves over its own interactions, one layer deep. Extractor layer,"
        " norm and scale of features, and what stands for missing images are not stated in the paper.",
    )
    reads_features = True

    class Params(PoolingParams, VisualParams):
        """Hyper-parameters."""

        feature_scale: float = Field(
            1.0, gt=0, description="factor on the features; at 4, vncf's, training collapses on ML-1M [not stated]"
        )

    params: VisualLightGraphConvolution.Params
