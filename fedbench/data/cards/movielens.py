"""MovieLens."""

from __future__ import annotations

from fedbench.data.cards.common import EVERY_RATING, IJCAI22_ORDER, icde24
from fedbench.data.catalogue import IJCAI22, DatasetCard, Download, File, ImageArchive, Source
from fedbench.data.records import INTERACTIONS

_LICENCE = (
    "GroupLens terms: research use with acknowledgement; no redistribution without separate permission; "
    "no commercial use"
)
_CITATION = (
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015, "
    "doi:10.1145/2827872"
)
_POSTERS = File(
    "ml-1m-posters/posters_128px_q85.tar", "3d24e5d30f41cdcac6c3d9d0c706b6e39e7a7c3054a41f54c9a3ab0ce73c4c68"
)

ML_100K = DatasetCard(
    name="ml-100k",
    title="MovieLens 100K",
    users=943,
    items=1_682,
    interactions=100_000,
    timestamps="yes",
    source="https://grouplens.org/datasets/movielens/100k/",
    licence=_LICENCE,
    citation=_CITATION,
    traps=(
        EVERY_RATING,
        "published-icde24 lacks one of the 100,000 ratings and numbers items by first appearance without it, so "
        "its indices differ from those of leave-one-out and 4:1",
    ),
    sources=(
        Source(
            INTERACTIONS,
            "ml-100k",
            {"all": File("ml-100k/u.data", "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490")},
        ),
        icde24(
            "ml-100k/loo_fedrecattack",
            ("train.txt", "e84ef2262894d4222a3a4847b9b5a84fd360051ca7e5b5673a08318d1c08528e"),
            ("test.txt", "b8e293c8e2fc7743b61b6a0dc0322d4db1a2994c38866f80d97207c8f64bfd3e"),
            {
                "0.01": (
                    "train.part-1%.txt",
                    "2991ba6f82ed5c52b6197b17187485b6010a09b802cf1020097cc6108c9d1266",
                ),
                "0.02": (
                    "train.part-2%.txt",
                    "9c7b618f3c455ba260fdf5223a50996c19302f917c1f98428163afb9623f0674",
                ),
                "0.03": (
                    "train.part-3%.txt",
                    "f45fd6f28b29735d9a398971b419ba57c1ba5a37e793ae8005fdd11845eac731",
                ),
                "0.05": (
                    "train.part-5%.txt",
                    "c6d37fe635962e1cedd3fbc58fa8534daa5c1a7678e140ee0862bdd02845c9a5",
                ),
                "0.1": (
                    "train.part-10%.txt",
                    "65703d134ca855a79655e461ccec47125b418dc8f9db4633b6446c693cc1a4de",
                ),
            },
            numbered_from=1,
        ),
    ),
    download=Download(
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        filename="ml-100k.zip",
        layout="ml-100k",
        size=4_924_029,
        sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        limit=64 << 20,
        member="ml-100k/u.data",
    ),
    images=ImageArchive(
        _POSTERS,
        File(
            "ml-1m-posters/ml100k_item_to_ml1m_movie_by_title.txt",
            "6b3428889fbc97801ff8ea4655a5433c6f6026bf4e6a7327ca79e1cabe99497c",
        ),
    ),
)

ML_1M = DatasetCard(
    name="ml-1m",
    title="MovieLens 1M",
    users=6_040,
    items=3_706,
    interactions=1_000_209,
    timestamps="yes (with the partial file: 80 % of them, and the order of all but 137 rows)",
    source="https://grouplens.org/datasets/movielens/1m/",
    licence=_LICENCE,
    citation=_CITATION,
    traps=(
        EVERY_RATING,
        "without ratings.dat the order of time comes from the partial file: equal timestamps are then in the order "
        "of the SASRec file, not of ratings.dat",
        "published-icde24: the training file is rebuilt as all pairs minus the published test pairs",
        "published-ijcai22 lacks one of the 1,000,209 ratings and is not chronological: each user's test items "
        "are the tail of the file order",
    ),
    sources=(
        Source(
            INTERACTIONS,
            "ml-1m",
            {"all": File("ml-1m/ratings.dat", "506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f")},
        ),
        Source(
            INTERACTIONS,
            "ml-1m-partial",
            {
                "all": File(
                    "ml-1m/ratings_merged_partial.csv.gz",
                    "06ec7289f10dc3e4c10d9cc1d1a8402763728b48d55014b5b8e483f248863985",
                )
            },
        ),
        icde24(
            "ml-1m/loo_fedrecattack",
            ("train_rebuilt.txt.gz", "5f9bb35980f399c070e2ffb4b844a912efeaccc35fc917e7edb3a751873ccf3d"),
            ("test.txt", "14b0207b0629ff7d0307c1cd57d95d4b8d7a935f0635ba22bf45bfc7928a2da1"),
            {
                "0.01": (
                    "train.part-1%.txt",
                    "d35cecbff39eee8aa90982effa2381f4fef04c69054729621121077a9d47f215",
                )
            },
            File(
                "ml-1m/loo_fedrecattack/item_index_to_movie_id.txt",
                "58ef7679fd5c398e36624cdd36485b4b2bfa08db9985abe803cc192f56c6fa09",
            ),
        ),
        Source(
            IJCAI22,
            "lists",
            {
                "train": File(
                    "ml-1m/split_poisonfeddlrs/train.dat.gz",
                    "b423915429f0bc9a60b1fb75f17bc4006539815d29dd8483a7953f78bd46e59d",
                ),
                "test": File(
                    "ml-1m/split_poisonfeddlrs/test.dat.gz",
                    "2679c601fcf8df9d387895e9d1212f7771ee9f03136d4eb970e116330098cc9b",
                ),
            },
            IJCAI22_ORDER,
            notes=("each user's test items are the tail of the file order, not the latest interactions",),
            numbered_from=1,
        ),
    ),
    download=Download(
        url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        filename="ml-1m.zip",
        layout="ml-1m",
        size=5_917_549,
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        limit=128 << 20,
        member="ml-1m/ratings.dat",
    ),
    images=ImageArchive(_POSTERS),
)
