"""Games of Steam."""

from __future__ import annotations

from fedbench.data.cards.common import SPLIT_LICENCE, icde24
from fedbench.data.catalogue import ICDE24, DatasetCard

STEAM = DatasetCard(
    name="steam",
    title="Steam-200K",
    users=3_753,
    items=5_134,
    interactions=114_713,
    timestamps="no",
    source="https://www.kaggle.com/datasets/tamber/steam-video-games",
    licence=f"upstream: see the page; {SPLIT_LICENCE}",
    citation="Steam Video Games, Tamber, Kaggle 2017",
    traps=(
        "42 of the 5,134 item indices have no interaction at all",
        "no timestamps: leave-one-out is random",
    ),
    sources=(
        icde24(
            "steam-200k/loo_fedrecattack",
            ("train.txt.gz", "a581f27f83e9b93f0a55093c03bb22e200e56314a0e3131c73cce6ec700848ed"),
            ("test.txt", "74a4eb89155541303294c2537479ad83d5184b7b94574fc3db112e74b56d9f65"),
            {
                "0.01": (
                    "train.part-1%.txt",
                    "f3b93d58a5b58738d06c143fa77311607ecd49cdddf88aa506173209038723da",
                )
            },
        ),
    ),
    union_of=ICDE24,
)
