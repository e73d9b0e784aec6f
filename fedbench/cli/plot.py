"""``fedbench plot``: pictures of the records, as PNG, SVG or PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedbench.cli.leaderboard import Folders, ListLength, open_database, usual_folder
from fedbench.cli.options import Only

plot_app = typer.Typer(
    help="Draw the records: curves over training, doses, defenses between prevention and cost, attack by defense, images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The picture to write, .png, .svg or .pdf.")]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN...", help="Ids of runs or the beginnings of them, or paths of records.")
]
Width = Annotated[
    float | None,
    typer.Option(
        metavar="INCHES",
        help="Of the picture, letters as large as in small print: 3.3 for a column, 7 for a page. [default: what it needs]",
    ),
]
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
    width: Width = None,
) -> None:
    """Draw ER@K and HR@K over epochs by attack, a panel for each dataset, model and malicious ratio."""
    from fedbench.leaderboard.curves import curve_panels, draw_curves
    from fedbench.pictures import check_picture

    check_picture(out)
    draw_curves(curve_panels(open_database(results, k, only or (), suite), defense), out, k, defense, width)
    _written(out)


@plot_app.command("doses", epilog="Example: fedbench plot doses --out doses.png --attack pieck-uea --attack a-hum")
def doses(
    out: Out,
    results: Folders = None,
    suite: SuiteOption = None,
    only: Only = None,
    k: ListLength = 10,
    attack: Annotated[
        list[str] | None,
        typer.Option(help="An attack to colour. Repeatable. [default: those that need the fewest clients]"),
    ] = None,
    width: Width = None,
) -> None:
    """Draw ER@K over the share of malicious clients by attack, a panel for each dataset and model."""
    from fedbench.leaderboard.dose_picture import draw_doses
    from fedbench.leaderboard.ranking_doses import dose_panels
    from fedbench.pictures import check_picture

    check_picture(out)
    draw_doses(dose_panels(open_database(results, k, only or (), suite)), out, k, attack or (), width)
    _written(out)


@plot_app.command("pareto", epilog="Example: fedbench plot pareto --out defenses.svg --suite core")
def pareto(out: Out, results: Folders = None, suite: SuiteOption = None, only: Only = None, k: ListLength = 10) -> None:
    """Draw defenses: what they prevent against what they cost, with the Pareto front."""
    from fedbench.leaderboard import TRACKS, rank_defenses
    from fedbench.leaderboard.picture import draw_defenses
    from fedbench.pictures import check_picture

    check_picture(out)
    database = open_database(results, k, only or (), suite)
    draw_defenses([row for track in TRACKS for row in rank_defenses(database, None, track)], out, k)
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


@plot_app.command(
    "images",
    epilog="Example: fedbench plot images 19886c9c 20b1 --out images.png --purifier jpeg --purifier blur:radius=2",
)
def images(
    runs: Runs,
    out: Out,
    results: Folders = None,
    purifier: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What cleans the images: a defense, also as NAME:parameter=value,... Repeatable. [default: the run's own,"
            " or jpeg, blur and gdmpd]",
        ),
    ] = None,
    amplify: Annotated[float, typer.Option(help="Factor on differences.")] = 8,
    targets: Annotated[int, typer.Option(help="At most as many of a run.")] = 4,
) -> None:
    """Draw the images that an attack showed: original, adversarial, purified, and their differences from the original."""
    from fedbench.inspection.finding import find_runs
    from fedbench.inspection.images import draw_images, image_strips
    from fedbench.pictures import check_picture

    check_picture(out)
    found = find_runs(runs, results or [usual_folder()])
    draw_images(image_strips(found, purifier or (), amplify, targets), out)
    _written(out)


@plot_app.command("similarity", epilog="Example: fedbench plot similarity 19886c9c 20b1 --out similarity.svg")
def similarity(runs: Runs, out: Out, results: Folders = None) -> None:
    """Draw how alike images are before and after the purifier, clean and uploaded ones, and the threshold of detection."""
    from fedbench.inspection.finding import find_runs
    from fedbench.inspection.similarity import draw_similarity, similarity_panels
    from fedbench.pictures import check_picture

    check_picture(out)
    draw_similarity(similarity_panels(find_runs(runs, results or [usual_folder()])), out)
    _written(out)


def _written(out: Path) -> None:
    from fedbench.cli.output import console

    console(err=True).print(f"written to {out}", soft_wrap=True)
