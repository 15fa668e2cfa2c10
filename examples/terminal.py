"""How a script ends: its exit status, what went wrong in one line, and no word where nobody reads on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from t4sa_data.errors import T4SAError


def run(main: Callable[[], object]) -> None:
    """Run a script's `main`; exit with the number it returns, with 2 and one line for a `T4SAError`.

    Raises:
        SystemExit: of a status that is not 0.
    """
    try:
        status = main()
        sys.stdout.flush()
    except T4SAError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # `| head`: what was to be read has been; Python must not write the rest at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if isinstance(status, int) and status:
        sys.exit(status)
