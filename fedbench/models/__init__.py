"""Recommenders, one file each."""

from __future__ import annotations

from fedbench.models.base import LocalStep, PublicParams, Recommender
from fedbench.registry import Registry

MODELS: Registry[Recommender] = Registry(
    "model",
    "fedbench.models.base:Recommender",
    {
        "mf": "fedbench.models.mf:MatrixFactorization",
        "ncf": "fedbench.models.ncf:NeuralCollaborativeFiltering",
        "sasrec": "fedbench.models.sasrec:SelfAttentiveSequentialRecommender",
    },
    group="fedbench.models",
)

__all__ = ["MODELS", "LocalStep", "PublicParams", "Recommender"]
