"""Whether the findings hold without any one seed: ``python leaderboard/stability.py [FILE...]`` prints a Markdown list.

Every finding has a claim, what it says without its numbers. The records are read again without the runs of one seed after
the other, and each claim is looked for among those that they make.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fedbench.leaderboard import Database
from fedbench.leaderboard.findings import findings

RESULTS = Path(__file__).with_name("results")
PUBLISHED = [RESULTS / "core.parquet", RESULTS / "core-ml-1m.parquet"]


def parts(claim: str) -> set[str]:
    """A claim may be about several boards: what it says of each."""
    return set(claim.split("; ")) - {""}


def main(files: list[Path]) -> None:
    """Print each finding, and without which seeds it is not found, or not on all its boards."""
    whole = Database(files, 10)
    seeds = [
        row["seed"]
        for row in whole.rows("select distinct seed from headline where target like 'per-seed%' order by seed")
    ]
    without = {
        seed: {part for each in findings(whole.without_seed(seed)) for part in parts(each.claim)} for seed in seeds
    }
    for each in findings(whole):
        print(f"- {each.text}")
        for claim in sorted(parts(each.claim)):
            lost = [str(seed) for seed, claims in without.items() if claim not in claims]
            print(
                f"  - {claim}: "
                + (f"not without seed {', '.join(lost)}" if lost else f"holds without any of {len(seeds)} seeds")
            )


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]] or PUBLISHED)
