"""``fedbench vision``: networks that look at images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedbench.cli.output import console, count, duration, facts, print_json
from fedbench.cli.snapshot import snapshot
from fedbench.cli.tried import tried

if TYPE_CHECKING:
    from fedbench.vision.training import Trained

vision_app = typer.Typer(
    help="Train networks that look at images, and try attacks on images.", no_args_is_help=True, rich_markup_mode=None
)
vision_app.command(
    "snapshot",
    epilog=(
        "Examples: fedbench vision snapshot ml-1m --out tried.parquet; "
        "fedbench vision snapshot ml-1m --attack psmu-v --eps 4 --eps 8 --defense none --defense jpeg --out tried.parquet"
    ),
)(snapshot)
vision_app.command("tried", epilog="Example: fedbench vision tried tried.parquet --out TRIED.md")(tried)


@vision_app.command(
    "train-denoiser",
    epilog=(
        "Examples: fedbench vision train-denoiser pictures/ --out my-denoiser; "
        "fedbench vision train-denoiser pictures/ --out my-denoiser --resume; "
        "fedbench vision train-denoiser --out generated --steps 500 --t-max 150"
    ),
)
def train_denoiser(
    out: Annotated[Path, typer.Option(help="The folder for weights, record and checkpoint.", metavar="DIR")],
    folder: Annotated[
        Path | None, typer.Argument(help="Images, in folders as they are; left out: all are generated.")
    ] = None,
    size: Annotated[int, typer.Option(help="Pixels, of height and width.")] = 64,
    steps: Annotated[int, typer.Option(help="How many.")] = 7000,
    batch: Annotated[int, typer.Option(help="Images of a step.")] = 8,
    seed: Annotated[int, typer.Option(help="Of weights, images and noise.")] = 0,
    t_max: Annotated[int, typer.Option(help="Step of 1,000 up to which it learns noise.")] = 300,
    synthetic_share: Annotated[float, typer.Option(help="Of the images, generated.")] = 0.4,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    decay: Annotated[int, typer.Option(help="Last steps, over which the learning rate goes to 0.")] = 800,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 200,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in DIR.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the processor; another number, other last bits.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Train a small UNet to predict the noise in pictures; gdmpd takes it as denoiser "pipeline" with denoiser_path DIR.

    A process that was stopped, however, goes on with --resume, to the same weights. DIR then holds model.safetensors
    (half precision), config.json, training.json (what it was made of, and its loss), loss.png and checkpoint.pt.
    """
    import torch

    from fedbench.errors import UserError
    from fedbench.vision.training import Training, picture_of_loss, train
    from fedbench.vision.training_images import read_folder

    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"--device {device} is not there; this torch has cpu{_others()}.") from None
    training = Training(
        size=size,
        steps=steps,
        batch=batch,
        seed=seed,
        t_max=t_max,
        synthetic_share=1.0 if folder is None else synthetic_share,
        learning_rate=learning_rate,
        decay=decay,
    )
    images = None
    if folder is not None:
        with _Shown("reading images") as shown:
            images = read_folder(folder, size, shown.count)
        if images.skipped:
            typer.echo(
                f"skipped what is no image: {count(len(images.skipped), 'file')}, such as {images.skipped[0]}", err=True
            )
    with _Shown("training") as shown:
        record = train(training, images, out, resume=resume, every=every, device=device, progress=shown.step)
    try:
        picture_of_loss(record, out / "loss.png")
    except UserError as error:  # without matplotlib, a denoiser is still one
        typer.echo(f"{error}", err=True)
    if as_json:
        print_json(record)
        return
    console().print(
        facts(
            [
                ("weights", f"{out / record['weights']['file']}, {record['weights']['bytes']:,} bytes"),
                ("parameters", f"{record['parameters']:,}"),
                ("images", f"{record['images']['count']:,}"),
                ("loss", f"{record['loss'][-1][1]:.4f}, after {count(record['steps'], 'step')}"),
                ("time", duration(record["seconds"])),
            ]
        )
    )


def _others() -> str:
    import torch

    return " and cuda" if torch.cuda.is_available() else ""


class _Shown:
    """A bar on the error stream when that is a terminal; elsewhere a line now and then."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Any = None
        self._task: Any = None
        self._next = 0.0

    def __enter__(self) -> _Shown:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def count(self, done: int, wanted: int) -> None:
        """So many of all are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=wanted)

    def step(self, now: Trained) -> None:
        """A step is done."""
        if self._bar is not None:
            text = f"{self._title}, loss {now.loss:.3f}"
            self._bar.update(self._task, completed=now.step, total=now.of, description=text)
        elif now.seconds >= self._next:
            self._next = now.seconds + 60
            typer.echo(f"step {now.step}/{now.of}, loss {now.loss:.4f}, {duration(now.seconds)}", err=True)
