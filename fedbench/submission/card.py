"""What a class says of itself: ``python -m fedbench.submission.card KIND FILE`` writes its card to ``card.json``."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    from fedbench.errors import FedbenchError
    from fedbench.plugins import load_file
    from fedbench.plugins.card_data import card_data
    from fedbench.submission.container import CARD
    from fedbench.submission.manifest import canonical

    try:
        Path(CARD).write_bytes(canonical(card_data(load_file(sys.argv[2], sys.argv[1]).cls)))  # type: ignore[arg-type]
    except FedbenchError as error:
        sys.exit(" ".join(str(error).split()))
