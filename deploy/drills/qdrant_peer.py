"""A Qdrant server for drills: the requests of ``storage.vectors_server``, answered by Qdrant's embedded engine.

    peer = QdrantPeer(folder)
    peer.back()          # serves on 127.0.0.1, always on the same port
    peer.away()          # refuses connections; the collections stay

Not a server for anything else: it knows only the requests that the product sends.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from qdrant_client import models

from storage.vectors_edge import EdgeIndex

Answer = tuple[int, Any]
_GREEN = {
    "status": "green",
    "optimizer_status": "ok",
    "segments_count": 1,
    "payload_schema": {},
}
_OPTIMIZERS = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "flush_interval_sec": 5,
}


class QdrantPeer:
    """Collections in a folder and a server that can be away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests = 0
        """Requests that were answered."""
        self._collections: dict[str, EdgeIndex] = {}
        self._aliases: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def address(self) -> str:
        """Where it answers once it was there."""
        return f"http://127.0.0.1:{self._port}"

    def back(self) -> None:
        """Serves again, if it does not."""
        if self._server is not None:
            return
        peer = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, result = peer.answer(self.command, self.path, json.loads(body or b"{}"))
                data = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PUT = do_PATCH = _answer

            def log_message(self, format: str, *arguments: object) -> None:
                """Nothing: a drill prints its own lines."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def away(self) -> None:
        """Refuses connections from now on, if it does not."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def close(self) -> None:
        """Goes away and closes the collections."""
        self.away()
        for index in self._collections.values():
            index.close()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Status and result of a request."""
        with self._one_at_a_time:
            self.requests += 1
            words = path.partition("?")[0].strip("/").split("/")
            if words == ["aliases"]:
                return 200, {"aliases": [{"alias_name": a, "collection_name": c} for a, c in self._aliases.items()]}
            if words == ["collections", "aliases"]:
                return self._move(body)
            name, rest = words[1], "/".join(words[2:])
            if method == "PUT" and not rest:
                return self._create(name, body)
            index = self._collections.get(name)
            if rest == "exists":
                return 200, {"exists": index is not None}
            if index is None:
                return 404, None
            asked: dict[str, Callable[[EdgeIndex, dict[str, Any]], Any]] = {
                "": lambda index, body: _described(index),
                "points": _upserted if method == "PUT" else _retrieved,
                "points/count": lambda index, body: {"count": index.count()},
                "points/query/batch": _found,
            }
            return 200, asked[rest](index, body)

    def _create(self, name: str, body: dict[str, Any]) -> Answer:
        if name in self._collections:
            return 409, None
        folder = self.folder / name
        folder.mkdir(parents=True)
        self._collections[name] = EdgeIndex(folder, int(body["vectors"]["size"]))
        return 200, True

    def _move(self, body: dict[str, Any]) -> Answer:
        for action in body["actions"]:
            if "delete_alias" in action:
                self._aliases.pop(action["delete_alias"]["alias_name"], None)
            else:
                made = action["create_alias"]
                self._aliases[made["alias_name"]] = made["collection_name"]
        return 200, True


def _described(index: EdgeIndex) -> Any:
    config = {
        "params": {"vectors": {"size": index.dimension, "distance": models.Distance.DOT.value}},
        "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
        "optimizer_config": _OPTIMIZERS,
    }
    return {**_GREEN, "points_count": index.count(), "config": config}


def _upserted(index: EdgeIndex, body: dict[str, Any]) -> Any:
    batch = body["batch"]
    index.load(np.array(batch["ids"], dtype=np.int64), np.array(batch["vectors"], dtype=np.float32))
    return {"operation_id": 0, "status": "completed"}


def _retrieved(index: EdgeIndex, body: dict[str, Any]) -> Any:
    vectors = index.vectors_of(body["ids"]).tolist()
    return [{"id": number, "vector": vector} for number, vector in zip(body["ids"], vectors, strict=True)]


def _found(index: EdgeIndex, body: dict[str, Any]) -> Any:
    answers = []
    for search in body["searches"]:
        asked = search["query"]
        vector = asked["nearest"] if isinstance(asked, dict) else asked
        query = np.array([vector], dtype=np.float32)
        hits = index._fetch(query, int(search["limit"]))[0]
        answers.append({"points": [{"id": number, "version": 0, "score": score} for number, score in hits]})
    return answers
