"""What cards of several datasets say alike."""

from __future__ import annotations

from fedbench.data.catalogue import ICDE24, File, Source

EVERY_RATING = "every rating counts as an interaction (a like), low ones too, as in the papers"
SPLIT_LICENCE = "the published split files are for learning and research purposes"
ICDE24_ORDER = "files of FedRecAttack (ICDE 2022) and PIECK (ICDE 2024), leave-one-out"
IJCAI22_ORDER = "files of PoisonFedDLRS (IJCAI 2022), about 4:1"


def icde24(
    folder: str,
    train: tuple[str, str],
    test: tuple[str, str],
    public: dict[str, tuple[str, str]],
    item_ids: File | None = None,
    numbered_from: int | None = None,
) -> Source:
    """The split of PIECK in ``folder``: of each file its name and SHA-256, of ``public`` by share of the interactions."""
    files = {"train": File(f"{folder}/{train[0]}", train[1]), "test": File(f"{folder}/{test[0]}", test[1])}
    files.update({f"public:{share}": File(f"{folder}/{name}", digest) for share, (name, digest) in public.items()})
    return Source(ICDE24, "lists", files, ICDE24_ORDER, item_ids=item_ids, numbered_from=numbered_from)
