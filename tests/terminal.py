"""`t4sa` on a pseudo-terminal of its own, as somebody sits before it (Linux)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from types import TracebackType

PATIENCE_SECONDS = 60
_MAIN = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); sys.argv = ['t4sa', *sys.argv[1:]]; "
    "from t4sa_data.cli import main; main()"
)


class Terminal:
    """A command with a terminal; use as a context manager, which ends when the command does."""

    def __init__(self, *words: str) -> None:
        import pty

        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-c", _MAIN, *words]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        os.close(self._ours)

    def type(self, data: bytes) -> None:
        """Press keys."""
        os.write(self._ours, data)

    def read_until(self, mark: bytes | None) -> bytes:
        """What is shown until `mark`, or until the command's end."""
        shown, limit = b"", time.monotonic() + PATIENCE_SECONDS
        while mark is None or mark not in shown:
            assert select.select([self._ours], [], [], max(0, limit - time.monotonic()))[0], shown
            try:
                data = os.read(self._ours, 4096)
            except OSError:  # nobody has the other side open any more
                data = b""
            if not data:
                assert mark is None, shown
                break
            shown += data
        return shown
