"""``python -m fedbench``, and the console script."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the middle of an import; commands take it over


def main() -> None:
    """The console script; a worker process, which imports this module, too, needs no commands."""
    from fedbench.cli import main as command

    command()


if __name__ == "__main__":
    main()
