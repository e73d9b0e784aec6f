"""Neural collaborative filtering: a perceptron on the concatenated embeddings of user and item."""

from __future__ import annotations

from pydantic import Field

from fedbench.entries.cards import ModelCard
from fedbench.federation.model import LARGEST_SIZE
from fedbench.models.perceptron import PerceptronParams, PerceptronRecommender


class NeuralCollaborativeFiltering(PerceptronRecommender):
    """``s_uj = h . MLP([u ; v_j]) + b_h`` (He et al. 2017).

    The output bias is in the published code, not in the papers; the rest is in
    :class:`fedbench.models.perceptron.PerceptronRecommender`.
    """

    card = ModelCard(name="ncf", title="Neural collaborative filtering", paper="He et al., WWW 2017")

    class Params(PerceptronParams):
        """Hyper-parameters."""

        embedding_size: int = Field(8, ge=1, le=LARGEST_SIZE, description="d [IJCAI'22 and ICDE'24: 8; WSDM'22: 64]")
        hidden: tuple[int, ...] = Field(
            (8, 8), min_length=1, max_length=16, description="hidden sizes [IJCAI'22 and ICDE'24: 8, 8]"
        )

    params: NeuralCollaborativeFiltering.Params
