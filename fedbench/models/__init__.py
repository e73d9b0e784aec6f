"""Recommenders, one file each."""

from __future__ import annotations

from fedbench.entries.registry import Registry
from fedbench.federation.model import LocalStep, PublicParams, Recommender

MODELS: Registry[Recommender] = Registry(
    "model",
    "fedbench.federation.model:Recommender",
    {
        "lightgcn": "fedbench.models.lightgcn:LightGraphConvolution",
        "lightvgcn": "fedbench.models.lightvgcn:VisualLightGraphConvolution",
        "mf": "fedbench.models.mf:MatrixFactorization",
        "ncf": "fedbench.models.ncf:NeuralCollaborativeFiltering",
        "neumf": "fedbench.models.neumf:NeuralMatrixFactorization",
        "pfedrec": "fedbench.models.pfedrec:PersonalTables",
        "sasrec": "fedbench.models.sasrec:SelfAttentiveSequentialRecommender",
        "vncf": "fedbench.models.vncf:VisualNeuralCollaborativeFiltering",
    },
    group="fedbench.models",
)

__all__ = ["MODELS", "LocalStep", "PublicParams", "Recommender"]
