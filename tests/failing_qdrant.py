"""A Qdrant that fails on purpose: answers come from Qdrant's embedded engine, and are wrong where a test says so.

with serving(folder, {"upsert": cut_after}) as peer: ...       the first upsert is stored, and its answer lost
"""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from deploy.drills.qdrant_peer import QdrantPeer

Act = Callable[["_Handler", Callable[[], bytes]], None]


@dataclass
class Peer:
    """A server that goes wrong: ``acts`` by kind of request, each for the first ``times`` requests of its kind."""

    qdrant: QdrantPeer
    acts: dict[str, Act] = field(default_factory=dict)
    times: int = 1
    address: str = ""
    requests: Counter[str] = field(default_factory=Counter)
    bodies: list[tuple[str, Any]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


KINDS = {
    ("GET", "exists"): "exists",
    ("PUT", ""): "create",
    ("PATCH", ""): "update",
    ("GET", ""): "describe",
    ("PUT", "points"): "upsert",
    ("POST", "points"): "retrieve",
    ("POST", "points/count"): "count",
    ("POST", "points/query/batch"): "search",
}


class _Handler(BaseHTTPRequestHandler):
    code = 200

    def _answer(self) -> None:
        peer: Peer = self.server.peer  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        words = self.path.partition("?")[0].strip("/").split("/")
        kind = "aliases" if "aliases" in words else KINDS[self.command, "/".join(words[2:])]
        peer.requests[kind] += 1
        peer.bodies.append((kind, body))

        def answered() -> bytes:
            if kind == "update":
                return _json(True)
            code, result = peer.qdrant.answer(self.command, self.path, body)
            self.code = code
            return _json(result)

        act = peer.acts.get(kind, peer.acts.get("all"))
        if act is not None and peer.requests[kind] <= peer.times:
            act(self, answered)
        else:
            data = answered()
            self.reply(self.code, data)

    do_GET = do_POST = do_PUT = do_PATCH = _answer

    def reply(self, status: int, data: bytes, *, sent: int | None = None, **headers: str) -> None:
        self.send_response(status)
        kinds = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**kinds, **{name.replace("_", "-"): value for name, value in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[:sent])
        if sent is not None:
            self.cut()

    def cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: object) -> None:
        return


def _json(result: Any) -> bytes:
    return json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()


def status(code: int, **headers: str) -> Act:
    """Refuses and does nothing."""
    return lambda handler, answered: handler.reply(code, b'{"status": {"error": "no"}, "time": 0}', **headers)


def cut_before(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Hangs up and does nothing."""
    handler.cut()


def cut_after(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Does as it was told and hangs up."""
    answered()
    handler.cut()


def half(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Does as it was told and hangs up in the middle of the answer."""
    data = answered()
    handler.reply(200, data, sent=len(data) // 2)


def page(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Says what a proxy says."""
    handler.reply(200, b"<html>\n<body>Welcome</body>\n</html>", Content_Type="text/html")


def other_json(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Says something in JSON that is no answer to anything."""
    handler.reply(200, _json({"surprise": 1}))


def nothing(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Says that it has nothing to say."""
    handler.reply(200, _json(None))


def silent(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Says nothing until the test is over."""
    handler.server.peer.over.wait()  # type: ignore[attr-defined]


def forgetful(handler: _Handler, answered: Callable[[], bytes]) -> None:
    """Says that points were stored, and does not store them."""
    handler.reply(200, _json({"operation_id": 0, "status": "completed"}))


def changed(change: Callable[[Any], Any]) -> Act:
    """Answers something else than it found."""
    return lambda handler, answered: handler.reply(200, _json(change(json.loads(answered())["result"])))


@contextmanager
def serving(folder: Path, acts: dict[str, Act] | None = None, times: int = 1) -> Iterator[Peer]:
    peer = Peer(QdrantPeer(folder), acts or {}, times)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.peer = peer  # type: ignore[attr-defined]
    peer.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield peer
    finally:
        peer.over.set()
        server.shutdown()
        thread.join()
        server.server_close()
        peer.qdrant.close()
