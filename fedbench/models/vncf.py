"""Visually-aware neural collaborative filtering: a perceptron on user, item and what the item's image looks like."""

from __future__ import annotations

from fedbench.entries.cards import ModelCard
from fedbench.models.perceptron import PerceptronParams, PerceptronRecommender
from fedbench.models.visual import VisualParams


class VisualNeuralCollaborativeFiltering(PerceptronRecommender):
    """``s_uj = h . MLP([u ; v_j ; E phi_j]) + b_h``, phi_j being the features of the item's image (TOIS, eq. 4).

    Public: item embeddings, head, and the projection E [d, F], which starts as N(0, 1/F) (not stated in the source).
    Items without an image have ``phi_j = 0``, hence ``z_j = 0``, and are ranked like the others.
    """

    card = ModelCard(
        name="vncf",
        title="Visually-aware neural collaborative filtering (Fed-VNCF)",
        paper="Manipulating Visually-aware Federated Recommender Systems and Its Countermeasures, TOIS",
        notes="Reads images of items. Extractor layer, norm and scale of features, and what stands for missing images are"
        " not stated in the paper; image attacks depend on the scale.",
    )
    reads_features = True

    class Params(PerceptronParams, VisualParams):
        """Hyper-parameters."""

    params: VisualNeuralCollaborativeFiltering.Params
