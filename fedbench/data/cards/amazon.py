"""Reviews of Amazon."""

from __future__ import annotations

from fedbench.data.cards.common import EVERY_RATING, IJCAI22_ORDER, SPLIT_LICENCE, icde24
from fedbench.data.catalogue import ICDE24, IJCAI22, PUBLISHED, DatasetCard, Download, File, Source

_LICENCE = "no licence stated upstream; research use with citation"

MUSIC = DatasetCard(
    name="amazon-music",
    title="Amazon Digital Music, 5-core (2018 reviews)",
    users=16_566,
    items=11_797,
    interactions=145_292,
    timestamps="upstream only; none in the published splits",
    source="https://nijianmo.github.io/amazon/index.html",
    licence=f"{_LICENCE}; {SPLIT_LICENCE}",
    citation="J. Ni, J. Li and J. McAuley, Justifying Recommendations using Distantly-Labeled Reviews, EMNLP 2019",
    traps=(
        EVERY_RATING,
        "the published 169,781 rows repeat 24,489 (user, item) pairs",
        "429 test pairs of published-icde24 and 599 test rows of published-ijcai22 are also in train",
        "the published 1 % sample of published-icde24 is the test file of published-ijcai22: it holds nearly all "
        "test pairs and over half of it is not training data",
        "2 users of published-icde24 and 56 of published-ijcai22 have no test item",
        "without the upstream file leave-one-out is random: the published files have no timestamps",
    ),
    sources=(
        icde24(
            "amazon-digital-music/loo_pieck",
            ("train.txt.gz", "d63bcd2dfabfb0a988a481e2fb6ca06fc9c87cc546981228b6244d48e8121649"),
            ("test.txt.gz", "94428788135bcaedac9367f207d2f70bebb096e367a34fa2d7ee3ef57d765bba"),
            {
                "0.01": (
                    "train.part-1%.txt.gz",
                    "f5b7285d6fba40d331cc180f2e0883ca1b06b4d8af11eccdd9d011252bcdbc3c",
                )
            },
        ),
        Source(
            IJCAI22,
            "lists",
            {
                "train": File(
                    "amazon-digital-music/split_poisonfeddlrs/train.dat.gz",
                    "b763b9c4ef95ef8bba23f75c8448d2fdc3a9b6753d0ef61826dbb8e6aab3bff3",
                ),
                "test": File(
                    "amazon-digital-music/split_poisonfeddlrs/test.dat.gz",
                    "2f8941916b10d889c6a4a7ac30073f8ee27b6437cd176877932a17490228942c",
                ),
            },
            IJCAI22_ORDER,
        ),
    ),
    union_of=ICDE24,
    download=Download(
        # Size and SHA-256 are not published upstream: the parsed counts are compared with the catalogue instead.
        url="https://jmcauley.ucsd.edu/data/amazon_v2/categoryFilesSmall/Digital_Music_5.json.gz",
        filename="Digital_Music_5.json.gz",
        layout="amazon",
        size=None,
        sha256=None,
        limit=1 << 30,
    ),
    image_index=Download(
        url="https://jmcauley.ucsd.edu/data/amazon_v2/metaFiles2/meta_Digital_Music.json.gz",
        filename="meta_Digital_Music.json.gz",
        layout="amazon-metadata",
        size=None,
        sha256=None,
        limit=1 << 30,
    ),
)

PHONES = DatasetCard(
    name="amazon-phones",
    title="Amazon Cell Phones and Accessories, 5-core (2014 reviews)",
    users=27_879,
    items=10_429,
    interactions=194_439,
    timestamps="yes, by the day",
    source="https://jmcauley.ucsd.edu/data/amazon/",
    licence=_LICENCE,
    citation=(
        "J. McAuley, C. Targett, Q. Shi and A. van den Hengel, Image-Based Recommendations on Styles and "
        "Substitutes, SIGIR 2015"
    ),
    traps=(
        EVERY_RATING,
        "the standard 5-core, not the 13,174-user variant of PipAttack and PSMU, which was never published",
        "many of a user's interactions share one day: their order inside it is that of the file",
    ),
    sources=(
        Source(
            PUBLISHED,
            "triples",
            {
                "train": File(
                    "amazon-cell-phones/train.txt.gz",
                    "7e9bfc183d22886a0bcc7d14e459d2835db7858235039e2eed85681245538de0",
                ),
                "valid": File(
                    "amazon-cell-phones/valid.txt.gz",
                    "1d1f888abac7b0d21735e9d57e1b0f0f86ebbcec239f71b826fe6bad44187541",
                ),
                "test": File(
                    "amazon-cell-phones/test.txt.gz",
                    "c6db86ed3d8e146f0d9f15f749d8234dac51087a791847ca3faf8a525e587010",
                ),
            },
            "files of ASReP (SIGIR 2021): by time, a user's last item is the test, the one before the validation",
            item_ids=File(
                "amazon-cell-phones/imap.json.gz",
                "206fc00dfb4c44e108f29a07d891d5295a5e3ec932d5133a68cbb4b7da77ff64",
            ),
        ),
    ),
    union_of=PUBLISHED,
    union_ordered=True,
    download=Download(
        # Size and SHA-256 are not published upstream: the parsed counts are compared with the catalogue instead.
        url=(
            "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
            "reviews_Cell_Phones_and_Accessories_5.json.gz"
        ),
        filename="reviews_Cell_Phones_and_Accessories_5.json.gz",
        layout="amazon",
        size=None,
        sha256=None,
        limit=1 << 30,
    ),
    image_index=Download(
        url=(
            "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles/meta_Cell_Phones_and_Accessories.json.gz"
        ),
        filename="meta_Cell_Phones_and_Accessories.json.gz",
        layout="amazon-metadata",
        size=None,
        sha256=None,
        limit=1 << 30,
    ),
)
