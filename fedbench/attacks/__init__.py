"""Attacks, one file each (or a family that shares one idea)."""

from __future__ import annotations

from fedbench.entries.registry import Registry
from fedbench.federation.attack import Attack

ATTACKS: Registry[Attack] = Registry(
    "attack",
    "fedbench.federation.attack:Attack",
    {
        "none": "fedbench.attacks.none:NoAttack",
        "random": "fedbench.attacks.shilling:RandomProfiles",
        "popular": "fedbench.attacks.shilling:PopularProfiles",
        "bandwagon": "fedbench.attacks.shilling:BandwagonProfiles",
        "dv-fsr": "fedbench.attacks.dv_fsr:DualView",
        "explicit-boost": "fedbench.attacks.explicit_boost:ExplicitBoost",
        "p1": "fedbench.attacks.p1:ModelReplacement",
        "p2": "fedbench.attacks.p2:LittleIsEnough",
        "pipattack": "fedbench.attacks.pipattack:PipAttack",
        "fedrecattack": "fedbench.attacks.fedrecattack:FedRecAttack",
        "a-ra": "fedbench.attacks.approximation:RandomApproximation",
        "a-hum": "fedbench.attacks.approximation:HardUserMining",
        "pieck-ipe": "fedbench.attacks.pieck_ipe:PieckIPE",
        "pieck-uea": "fedbench.attacks.pieck_uea:PieckUEA",
        "poisonfrs": "fedbench.attacks.poisonfrs:PoisonFRS",
        "psmu": "fedbench.attacks.psmu:SyntheticMaliciousUsers",
        "psmu-popular": "fedbench.attacks.psmu:PopularSyntheticUsers",
        "psmu-v": "fedbench.attacks.psmu_v:SyntheticUserImages",
        "psmu-pp": "fedbench.attacks.psmu_pp:SyntheticUserImagesAndGradients",
        "psmu-v-adaptive": "fedbench.attacks.psmu_v_adaptive:AdaptiveSyntheticUserImages",
        "popularity-image": "fedbench.attacks.popularity_image:PopularImages",
        "explicit-boost-demote": "fedbench.attacks.explicit_boost:ExplicitDemotion",
        "p1-demote": "fedbench.attacks.p1:ModelReplacementDemoting",
        "p2-demote": "fedbench.attacks.p2:LittleIsEnoughDemoting",
        "pipattack-demote": "fedbench.attacks.pipattack:PipDemotion",
        "fedrecattack-demote": "fedbench.attacks.fedrecattack:DemotingRecAttack",
        "a-ra-demote": "fedbench.attacks.approximation:RandomDemotion",
        "a-hum-demote": "fedbench.attacks.approximation:HardFanMining",
        "pieck-ipe-demote": "fedbench.attacks.pieck_ipe:DemotingIPE",
        "pieck-uea-demote": "fedbench.attacks.pieck_uea:DemotingUEA",
        "poisonfrs-demote": "fedbench.attacks.poisonfrs:DemotingFRS",
        "psmu-demote": "fedbench.attacks.psmu:DemotingSyntheticUsers",
        "cluster-attack": "fedbench.attacks.cluster_attack:ClusterAttack",
        "cluster-attack-cl": "fedbench.attacks.cluster_attack:ContrastiveClusterAttack",
        "spattack-o": "fedbench.attacks.spattack:OmniscientSpattack",
        "spattack-l": "fedbench.attacks.spattack:IgnorantSpattack",
        "sign-flip": "fedbench.attacks.sign_flip:SignFlip",
        "label-flip": "fedbench.attacks.label_flip:LabelFlip",
        "fed-attack": "fedbench.attacks.fed_attack:FedAttack",
        "gaussian": "fedbench.attacks.statistical:Gaussian",
        "lie": "fedbench.attacks.statistical:Lie",
        "fang": "fedbench.attacks.statistical:Fang",
        "ipm": "fedbench.attacks.statistical:InnerProduct",
        "min-max": "fedbench.attacks.distance_bounded:MinMax",
        "min-sum": "fedbench.attacks.distance_bounded:MinSum",
        "frecattack2": "fedbench.attacks.frecattack2:FRecAttack2",
        "adaptive": "fedbench.attacks.adaptive:Adaptive",
        "ua-fedrec": "fedbench.attacks.ua_fedrec:UAFedRec",
    },
    group="fedbench.attacks",
)

__all__ = ["ATTACKS", "Attack"]
