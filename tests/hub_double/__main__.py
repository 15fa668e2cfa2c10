"""A Hub to try commands on by hand: `python -m tests.hub_double FOLDER alice bob`; Ctrl-C ends it.

Prints what to put into the environment; the token of NAME is `hf_NAME`.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.hub_double.server import WritableHub


def main(folder: str, *names: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    with WritableHub(Path(folder), users={f"hf_{name}": name for name in names}) as hub:
        print(f"export HF_ENDPOINT={hub.url} HF_HUB_DISABLE_XET=1 HF_HUB_DISABLE_TELEMETRY=1", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\n".join(str(request) for request in hub.log))


if __name__ == "__main__":
    main(*sys.argv[1:])
