"""``python -m fedbench``, and the console script."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback from the middle of an import; commands take it over

from fedbench.cli import main

if __name__ == "__main__":
    main()
