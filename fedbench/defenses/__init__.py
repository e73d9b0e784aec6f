"""Defenses, one file each, and the chain that combines them."""

from __future__ import annotations

from fedbench.entries.registry import Registry
from fedbench.federation.defense import ClientRegularization, Defense, ServerView

DEFENSES: Registry[Defense] = Registry(
    "defense",
    "fedbench.federation.defense:Defense",
    {
        "none": "fedbench.defenses.none:NoDefense",
        "norm-bound": "fedbench.defenses.norm_bound:NormBound",
        "hics": "fedbench.defenses.hics:HierarchicalClipping",
        "median": "fedbench.defenses.median:Median",
        "trimmed-mean": "fedbench.defenses.trimmed_mean:TrimmedMean",
        "krum": "fedbench.defenses.krum:Krum",
        "multi-krum": "fedbench.defenses.krum:MultiKrum",
        "bulyan": "fedbench.defenses.bulyan:Bulyan",
        "rfa": "fedbench.defenses.rfa:GeometricMedian",
        "foolsgold": "fedbench.defenses.foolsgold:FoolsGold",
        "dnc": "fedbench.defenses.dnc:DivideAndConquer",
        "mixed": "fedbench.defenses.mixed:MixedAggregation",
        "centered-clipping": "fedbench.defenses.centered_clipping:CenteredClipping",
        "flame": "fedbench.defenses.flame:Flame",
        "nnm": "fedbench.defenses.nnm:NearestNeighbourMixing",
        "bucketing": "fedbench.defenses.bucketing:Bucketing",
        "pieck-regularizer": "fedbench.defenses.pieck_regularizer:PieckRegularizer",
        "fl-wbc": "fedbench.defenses.fl_wbc:WhiteBloodCells",
        "union": "fedbench.defenses.union:Union",
        "guardcq": "fedbench.defenses.guardcq:GuardCQ",
        "jpeg": "fedbench.defenses.jpeg:Jpeg",
        "bit-depth": "fedbench.defenses.bit_depth:BitDepth",
        "blur": "fedbench.defenses.blur:Blur",
        "median-filter": "fedbench.defenses.median_filter:MedianFilter",
        "spectral": "fedbench.defenses.spectral:SpectralPurifier",
        "gdmpd": "fedbench.defenses.gdmpd:Gdmpd",
        "gdmpd-unguided": "fedbench.defenses.gdmpd:UnguidedGdmpd",
    },
    group="fedbench.defenses",
)

__all__ = ["DEFENSES", "ClientRegularization", "Defense", "ServerView"]
