"""The process of the local Prefect server: serves until its standard input is closed.

Started by ``flows.server`` with a pipe as standard input and the port as argument. The pipe closes when the command
that started it ends in any way, SIGKILL included, so no server is ever left behind.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

import uvicorn


def _stop_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
