"""Everything that is made of the published records: ``python leaderboard/publish.py``.

LEADERBOARD.md, boards of other suites, the pictures of doses and defenses, and what stands between marks in the README and in
NOTES.md: they say the same.
"""

from __future__ import annotations

from pathlib import Path

import adaptive
import entries
import held_out

from fedbench.leaderboard import TARGETED, Database, rank_defenses
from fedbench.leaderboard.board import Board, make_board
from fedbench.leaderboard.dose_picture import draw_doses
from fedbench.leaderboard.picture import draw_defenses
from fedbench.leaderboard.ranking_doses import dose_panels
from fedbench.leaderboard.render import escape, finding_line, markdown
from fedbench.leaderboard.sheets import Sheet

HERE = Path(__file__).parent
README, NOTES = HERE.parent / "README.md", HERE / "NOTES.md"
RESULTS = HERE / "results"
FILES = ("core.parquet", "core-ml-1m.parquet", "core-ml-100k.parquet")
RECORDS = [*(RESULTS / file for file in FILES), *RESULTS.glob("submitted")]
BOARDS = {"ADAPTIVE.md": ("adaptive", 10), "UNTARGETED.md": ("core-untargeted", 5), "VISUAL.md": ("core-visual", 10)}
"""Boards of suites of their own, over all records, with their K: `fedbench leaderboard --suite SUITE --k K`."""
COLUMNS = {
    "Attacks by half-exposure dose": ("rank", "attack", "mean dose", "reached", "ER@10", "beats", "knows", "on"),
    "Defenses by": (
        "rank", "defense", "ER@10 reduction", "HR@10 loss, clean", "net", "beats", "ER@10 left", "worst attack",
    ),
}  # fmt: skip
"""Of the tables in the README, by how their titles begin: the columns."""


def blocks(board: Board) -> dict[str, str]:
    """What stands in the README, by the name of its mark."""
    first = {start: next(sheet for sheet in board.sheets if sheet.title.startswith(start)) for start in COLUMNS}
    doses = [sheet for sheet in board.sheets if sheet.title.startswith("Doses on")]
    return {
        "findings": "\n".join(finding_line(each) for each in board.findings),
        "doses": "\n\n".join(f"{escape(sheet.title)}:\n\n{table(sheet, sheet.headings)}" for sheet in doses),
        "defenses": table(first["Defenses by"], COLUMNS["Defenses by"]),
    }


def table(sheet: Sheet, headings: tuple[str, ...]) -> str:
    """Some columns of a table as Markdown."""
    places = [sheet.headings.index(heading) for heading in headings]
    lines = [headings, *([escape(row[place]) for place in places] for row in sheet.rows)]
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(headings), *rest])


def filled(text: str, found: dict[str, str], name: str) -> str:
    """The file called ``name`` with what stands between ``<!-- name -->`` and ``<!-- end -->`` made anew."""
    for mark_name, block in found.items():
        before, mark, rest = text.partition(f"<!-- {mark_name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not mark or not end:
            raise SystemExit(f"{name} has no <!-- {mark_name} --> with an end.")
        text = f"{before}{mark}{block}\n{end}{after}"
    return text


def in_notes() -> dict[str, str]:
    """What stands in NOTES.md, by the name of its mark."""
    return {
        "held out": held_out.table(RECORDS),
        "adaptive": adaptive.table([RESULTS]),
        "newer defenses": entries.defenses([RESULTS]),
        "personalisation": entries.personalisation([RESULTS]),
    }


def board_of(file: str) -> str:
    """One of :data:`BOARDS`, as Markdown."""
    suite, k = BOARDS[file]
    return markdown(make_board(Database([RESULTS], k, (), suite)))


def main() -> None:
    """Write it all."""
    for name in BOARDS:
        (HERE / name).write_text(board_of(name), encoding="utf-8")
    database = Database(RECORDS, 10)
    board = make_board(database)
    (HERE / "LEADERBOARD.md").write_text(markdown(board), encoding="utf-8")
    draw_doses(dose_panels(database), HERE / "doses.png", 10)
    draw_defenses(rank_defenses(database, None, TARGETED), HERE / "defenses.png", 10)
    for file, found in ((README, blocks(board)), (NOTES, in_notes())):
        file.write_text(filled(file.read_text(encoding="utf-8"), found, file.name), encoding="utf-8")


if __name__ == "__main__":
    main()
