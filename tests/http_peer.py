"""A small HTTP server that answers what a test says: status and JSON by path, or what a function makes of the body.

with peer({"/health": (200, "ok"), "/filter": lambda body: [...]}) as address: ...
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def peer(answers: Mapping[str, Any]) -> Iterator[str]:
    """Serves on a free port of 127.0.0.1 while the block runs; gives its address. Unknown paths are 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = answers.get(self.path, (404, {}))
            if callable(answer):
                made = answer(json.loads(body or b"null"))
                answer = made if isinstance(made, tuple) else (200, made)
            status, value, *kind = answer
            data = json.dumps(value).encode() if not kind else str(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", kind[0] if kind else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing: a test reads no log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
