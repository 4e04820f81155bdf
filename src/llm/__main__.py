"""The console script `manifold`, the same program as `python -m llm`."""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its status; Ctrl-C while modules load is a 130, too."""
    try:
        from llm.cli.main import run

        status = run()
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)


if __name__ == "__main__":
    main()
