"""``fedbench plot``: pictures of the records, as PNG or SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.leaderboard import Folders, ListLength, open_database
from fedbench.cli.run import Only

plot_app = typer.Typer(
    help="Draw the records: curves over training, defenses between prevention and cost, attack by defense.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The picture to write, .png or .svg.")]
SuiteOption = Annotated[str | None, typer.Option(help="Only scenarios of this suite.")]


@plot_app.command(
    "curves", epilog="Example: fedbench plot curves --out curves.png --suite core --only malicious_ratio=0.05"
)
def curves(
    out: Out,
    results: Folders = None,
    suite: SuiteOption = None,
    only: Only = None,
    k: ListLength = 10,
    defense: Annotated[str, typer.Option(help="Under which defense, by its name on the leaderboard.")] = "none",
) -> None:
    """Draw ER@K and HR@K over epochs by attack, a panel for each dataset, model and malicious ratio."""
    from fedbench.leaderboard.curves import curve_panels, draw_curves
    from fedbench.pictures import check_picture

    check_picture(out)
    draw_curves(curve_panels(open_database(results, k, only or (), suite), defense), out, k, defense)
    _written(out)


@plot_app.command("pareto", epilog="Example: fedbench plot pareto --out defenses.svg --suite core")
def pareto(out: Out, results: Folders = None, suite: SuiteOption = None, only: Only = None, k: ListLength = 10) -> None:
    """Draw defenses: what they prevent against what they cost, with the Pareto front."""
    from fedbench.leaderboard import TARGETED, UNTARGETED, rank_defenses
    from fedbench.leaderboard.picture import draw_defenses
    from fedbench.pictures import check_picture

    check_picture(out)
    database = open_database(results, k, only or (), suite)
    draw_defenses([row for track in (TARGETED, UNTARGETED) for row in rank_defenses(database, None, track)], out, k)
    _written(out)


@plot_app.command("heatmap", epilog="Example: fedbench plot heatmap --out map.png --suite core --only model=mf")
def heatmap(
    out: Out, results: Folders = None, suite: SuiteOption = None, only: Only = None, k: ListLength = 10
) -> None:
    """Draw what each defense leaves of each attack: ER@K, or the share of HR@K lost to untargeted attacks."""
    from fedbench.leaderboard.heatmap import draw_heatmap, heat_grids
    from fedbench.pictures import check_picture

    check_picture(out)
    draw_heatmap(heat_grids(open_database(results, k, only or (), suite)), out)
    _written(out)


def _written(out: Path) -> None:
    from fedbench.cli.output import console

    console(err=True).print(f"written to {out}", soft_wrap=True)
