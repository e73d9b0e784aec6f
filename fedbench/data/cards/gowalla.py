"""Check-ins of Gowalla."""

from __future__ import annotations

from fedbench.data.catalogue import PUBLISHED, DatasetCard, Download, File, Source

_NGCF = (
    "https://raw.githubusercontent.com/xiangwang1223/neural_graph_collaborative_filtering/"
    "a718a4f2df7c3942ca0df6759926975762c61eed/Data/gowalla"
)
_GOWALLA_TIMES = (
    "the published split has no timestamps: leave-one-out is random by seed unless the check-ins are imported"
)
_GOWALLA_PARTS = (
    "train and validation together are the training set of NGCF and LightGCN; test is byte-identical to theirs"
)


def _ngcf_list(kind: str, size: int, sha256: str) -> Download:
    name = f"{kind}_list.txt"
    return Download(f"{_NGCF}/{name}", name, "id-list", size, sha256, limit=16 << 20)


GOWALLA = DatasetCard(
    name="gowalla",
    title="Gowalla check-ins, 10-core",
    users=29_858,
    items=40_981,
    interactions=1_027_370,
    timestamps="upstream only; none in the published split",
    source="https://snap.stanford.edu/data/loc-gowalla.html",
    licence="no licence stated upstream; research use with citation",
    citation="E. Cho, S. A. Myers and J. Leskovec, Friendship and Mobility, KDD 2011",
    traps=(
        _GOWALLA_TIMES,
        _GOWALLA_PARTS,
        "the published split counts a location once for each user; the check-ins repeat: the 1,585,043 interactions of "
        "Yu et al. (AAAI 2023) are those of the listed users at the listed locations, repeats kept "
        "(duplicates = keep), without the first line of the file, which their code takes for a header",
        "with repeated check-ins kept, a user's test item may also be in train",
        "upstream states neither size nor checksum of the check-ins: the import tells those of the file it read",
    ),
    sources=(
        Source(
            PUBLISHED,
            "lists",
            {
                "train": File(
                    "gowalla/train.txt.gz", "5d6c1565de1f0586eb69cfa1fddffc301fb66ab07d83772042760a5727df3858"
                ),
                "valid": File(
                    "gowalla/valid.txt.gz", "8d357b0921ba5b25702387b91f135c946959836d3382489b2f1012edd9301122"
                ),
                "test": File("gowalla/test.txt.gz", "9db4414306dbc518d3b81b0239515497908ecd6de09df99c6a92ba171e75b902"),
            },
            "files of LightGCN++ (RecSys 2024); a random split, there are no timestamps",
            notes=(_GOWALLA_TIMES, _GOWALLA_PARTS),
        ),
    ),
    union_of=PUBLISHED,
    download=Download(
        # Size and SHA-256 are not published upstream: the parsed counts are compared with the catalogue instead.
        url="https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz",
        filename="loc-gowalla_totalCheckins.txt.gz",
        layout="gowalla",
        size=None,
        sha256=None,
        limit=1 << 30,
    ),
    id_lists={
        "user": _ngcf_list("user", 351_203, "5344c4d0deef610e1f148f23ad216a0db03b36f88834cd39a06786a672c5f5a1"),
        "item": _ngcf_list("item", 506_926, "6b186f92890cc3f0c15a6dae5d6285f125a302bb8c5ea0cd9a16cf9c16347139"),
    },
)
