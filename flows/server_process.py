"""The process of the local Prefect server: serves until its standard input is closed.

Started with a pipe as standard input and a port as argument, or ``fd:N`` for a socket that listens already. The pipe
closes when the command that started it ends in any way, SIGKILL included, so no server is ever left behind.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from contextlib import suppress

import uvicorn


def _stop_with_parent() -> None:
    # Not through sys.stdin: Python ends with a fatal error when a thread waits in it.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    where, _, descriptor = sys.argv[1].partition(":")
    taken = [socket.socket(fileno=int(descriptor))] if descriptor else None
    port = taken[0].getsockname()[1] if taken else int(where)
    # Prefect's pages ask the API at port 4200 unless they are told: there may be another server.
    os.environ.setdefault("PREFECT_UI_API_URL", f"http://127.0.0.1:{port}/api")
    os.environ.setdefault("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false")
    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=taken)
    sys.exit(0 if server.started else 3)
