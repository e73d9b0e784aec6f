"""The command line: each command parses, calls and prints; everything heavy is imported inside the commands."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fedbench import __version__
from fedbench.cli.catalogue import list_entries, show
from fedbench.cli.check import check
from fedbench.cli.compare import compare
from fedbench.cli.data import data_app
from fedbench.cli.doctor import doctor
from fedbench.cli.export import export
from fedbench.cli.inspect import inspect
from fedbench.cli.leaderboard import leaderboard, pack, sql
from fedbench.cli.new import new
from fedbench.cli.options import slurm_hint
from fedbench.cli.pages import pages
from fedbench.cli.plot import plot_app
from fedbench.cli.reproduce import reproduce
from fedbench.cli.run import run
from fedbench.cli.status import status
from fedbench.cli.submit import submit, verify
from fedbench.cli.vision import vision_app
from fedbench.errors import FedbenchError
from fedbench.texts import visible
from fedbench.without_torch import MISSING

LONGEST = 2_000
"""Characters of an error."""


class _Commands(TyperGroup):
    """Turns errors into one line and an exit code; ``--debug`` lets the traceback through."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return super().make_context(info_name, [_with_home(each) for each in args], parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        if sys.stdout is None:  # no command could say how it went
            typer.echo("error: stdout is closed.", err=True)
            raise typer.Exit(1)
        try:
            with _interruptible():
                return super().invoke(ctx)
        except FedbenchError as error:
            if ctx.params.get("debug"):
                raise
            _say(f"error: {visible(' '.join(str(error).split()), LONGEST)}")
            raise typer.Exit(error.exit_code) from None
        except SystemExit as error:  # none of ours: of an entry that was imported, or of its parameters
            _say(f"error: the entry tried to end the command (SystemExit: {visible(str(error), 100)}).")
            raise typer.Exit(1) from None
        except (OSError, UnicodeEncodeError, MemoryError) as error:  # a name too long, an argument that is no text
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            _say(f"error: {_of_system(error)}")
            raise typer.Exit(1) from None
        except ModuleNotFoundError as error:
            if ctx.params.get("debug") or error.name != "torch":
                raise
            _say(f"error: {MISSING}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            _say("interrupted")
            raise typer.Exit(128 + signal.SIGINT) from None
        except Exception as error:
            usage = getattr(error, "format_message", None)
            where = getattr(error, "ctx", None)
            if usage is None or where is None or type(error).__name__.startswith("NoArgsIsHelp"):
                raise
            text = " ".join(usage().split()).rstrip(".")
            slurm = slurm_hint(getattr(error, "option_name", "")) if where.info_name == "run" else ""
            if slurm:
                text = f"{error.message.rstrip('.')}. {slurm}"  # type: ignore[attr-defined]
            typer.echo(f"error: {text}. See `{where.command_path} --help`.", err=True)
            raise typer.Exit(2) from None


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise, where it would end the process without a word."""
    quiet = signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    if quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if quiet:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


def _with_home(argument: str) -> str:
    """A path, or an option with one, with the home folder for its tilde, where the shell has left it (``--out=~/x``)."""
    option, tilde, path = re.match(r"(--[\w-]+=)?(~[\w.-]*)?(.*)", argument, re.DOTALL).groups("")  # type: ignore[union-attr]
    if not tilde or path[:1] not in ("", "/"):
        return argument
    home = os.path.expanduser(tilde)
    if home.startswith("~"):
        _say(f"error: there is no home folder for {visible(argument, 200)}; set HOME, or write the path out.")
        raise typer.Exit(2)
    return option + home + path


def _of_system(error: Exception) -> str:
    """What the system refused, and of which file."""
    if isinstance(error, MemoryError):
        return "there is not enough memory."
    where, what = getattr(error, "filename", None), getattr(error, "strerror", None) or str(error)
    return f"{visible(f'{where}: {what}' if where else what, LONGEST)}."


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        typer.echo(text, err=True)


def _examples(*lines: str) -> str:
    """An epilog that keeps its lines."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


app = typer.Typer(
    name="fedbench",
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Benchmark of poisoning attacks and defenses for federated recommenders.",
    epilog=_examples("fedbench run smoke", "fedbench leaderboard", "fedbench show pieck-uea"),
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"fedbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of all commands."""


app.command(
    "run",
    epilog=_examples(
        "fedbench run smoke",
        "fedbench run core --only dataset=ml-100k,model=mf --seeds 3 --jobs 8",
        "fedbench run smoke --attack ./my_attack.py",
        "fedbench run --dataset ml-1m --model mf --attack pieck-uea,a-hum --ratio .01,.05 --seeds 3 --save mine.toml",
        "fedbench run icde24-table3 --only variant=published --dry-run",
        "fedbench run smoke --diagnostics --diagnose-every 5",
    ),
)(run)
app.command(
    "status",
    epilog=_examples("fedbench status core", "fedbench status core --only dataset=ml-1m --results shared/results"),
)(status)
app.command(
    "leaderboard",
    epilog=_examples(
        "fedbench leaderboard",
        "fedbench leaderboard --suite core --only dataset=ml-100k --k 5",
        "fedbench leaderboard --results results --results more --out LEADERBOARD.md",
        "fedbench leaderboard --suite core --html page",
    ),
)(leaderboard)
app.command(
    "export",
    epilog=_examples(
        "fedbench export latex --suite core --table 'Doses*' --out doses.tex",
        "fedbench export latex --only dataset=ml-100k --document --out board.tex && pdflatex board.tex",
        "fedbench export csv --results leaderboard/results/core.parquet --out ranks.csv",
        "fedbench export bibtex --suite core --out methods.bib",
    ),
)(export)
app.command(
    "sql",
    epilog=_examples(
        'fedbench sql "select attack, model, avg(er_10) from runs group by all order by all"',
        'fedbench sql "select attack, epoch, avg(er_10) from curves group by all order by all" --csv',
    ),
)(sql)
app.command("pack", epilog=_examples("fedbench pack leaderboard/results/core-ml-100k.parquet --results results/core"))(
    pack
)
app.command(
    "reproduce",
    epilog=_examples(
        "fedbench reproduce icde24-table3 --only dataset=ml-100k,model=mf,variant=published",
        "fedbench reproduce ijcai22 --seeds 3 --out ijcai22.md",
    ),
)(reproduce)
app.command(
    "inspect",
    epilog=_examples(
        "fedbench inspect 19886c9cc51c7114-s0",
        "fedbench inspect results/19886c9cc51c7114-s0.parquet --out run.png --rounds 0,400",
    ),
)(inspect)
app.command(
    "new",
    epilog=_examples(
        "fedbench new attack my-attack",
        "fedbench new attack my-attack --goal degrade --dir attacks",
        "fedbench new defense my-defense",
        "fedbench new suite my-suite",
    ),
)(new)
app.command("check", epilog=_examples("fedbench check ./my_attack.py", "fedbench check pieck-uea --json"))(check)
app.command("list", epilog=_examples("fedbench list attacks", "fedbench list suites --json"))(list_entries)
app.command(
    "show",
    epilog=_examples(
        "fedbench show pieck-uea",
        "fedbench show ./my_attack.py",
        "fedbench show none --kind defense",
        "fedbench show suite-format",
    ),
)(show)
app.command(
    "compare",
    epilog=_examples(
        "fedbench compare pieck-uea pieck-ipe --suite core",
        "fedbench compare median hics --results leaderboard/results --k 5",
        "fedbench compare results/laptop results/server --out difference.md",
    ),
)(compare)
app.command(
    "pages",
    epilog=_examples(
        "fedbench pages --out leaderboard/suites --results leaderboard/results", "fedbench pages core --out pages"
    ),
)(pages)
app.command("doctor", epilog=_examples("fedbench doctor", "fedbench doctor --json"))(doctor)
app.command(
    "submit",
    epilog=_examples(
        "fedbench submit --attack ./my_attack.py --results results --only dataset=ml-100k,model=mf",
        "fedbench submit --defense ./my_defense.py --suite smoke --results-of-twins leaderboard/results --out mine.zip",
    ),
)(submit)
app.command(
    "verify",
    epilog=_examples(
        "fedbench verify my-attack.zip --source",
        "fedbench verify my-attack.zip --no-rerun",
        "fedbench verify my-attack.zip --runs 5 --yes",
    ),
)(verify)
app.add_typer(data_app, name="data")
app.add_typer(plot_app, name="plot")
app.add_typer(vision_app, name="vision")


def main() -> None:
    """The console script."""
    _open_streams()
    from fedbench.cli.supervision import needed, supervised

    if needed(sys.argv[1:]):
        sys.exit(supervised(_command))
    _command()


def _open_streams() -> None:
    """Give standard streams that are closed (``2>&-``) a place, or the next file that is opened would be taken for one.

    What is said on standard error then goes nowhere; :class:`_Commands` refuses to work without standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest number that is free
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _command() -> None:
    """One command: standard output that cannot be written is one line, too."""
    try:
        try:
            app(prog_name="fedbench")
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        _silence()
        sys.exit(1)
    except OSError as error:
        _say(f"error: standard output: {_of_system(error)}")
        _silence()
        sys.exit(1)


def _silence() -> None:
    """Nothing more is written when Python ends, which would tell of the same once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
