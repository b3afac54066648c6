"""The process that ends an installation whose supervisor was killed: it waits for its standard input to close.

Started by the supervisor with a pipe, which closes when the supervisor ends in any way, SIGKILL included.

python -m flows.standing.guard INSTALLATION
"""

from __future__ import annotations

import signal
import sys

from flows.standing.processes import end, members

GRACE_SECONDS = 10.0


def main(installation: str) -> None:
    """Waits, then ends every process that carries the mark but this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdin.buffer.read()
    # A worker that was just ending may have started one more.
    while found := members(installation):
        end(found, grace_seconds=GRACE_SECONDS)


if __name__ == "__main__":
    main(sys.argv[1])
