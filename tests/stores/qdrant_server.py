"""Qdrant's REST interface on loopback, as far as `stores/qdrant.py` uses it, over the client's local mode.

So the requests go over a real connection, and a test can have the server answer something else.
"""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

Answer = Callable[["QdrantExchange"], None]


class QdrantServer:
    """A server; `forge` changes the results of answers, `behave` replaces whole answers."""

    def __init__(self) -> None:
        self.local = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.lock = threading.Lock()
        self.settings: dict[str, dict[str, Any]] = {}
        self.indexes: list[tuple[str, dict[str, Any]]] = []
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.behave: Answer | None = None
        self.forge: Callable[[str, Any], Any] = lambda _, result: result
        handler = type("BoundExchange", (QdrantExchange,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        # A client that hung up meanwhile; anything else fails the test by what the client gets.
        self._server.handle_error = lambda *_: None
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self.local.close()

    def result(self, method: str, path: str, body: Any) -> Any:
        """What Qdrant answers, as its client's models. Raises KeyError for what there is not."""
        _, name, *rest = path.strip("/").split("/")
        if rest == ["exists"]:
            return {"exists": self.local.collection_exists(name)}
        if method == "PUT" and not rest:
            self.settings[name] = body
            wanted = models.CreateCollection(**body)
            return self.local.create_collection(
                name, wanted.vectors, wanted.sparse_vectors, metadata=wanted.metadata
            )
        if not self.local.collection_exists(name):
            raise KeyError(name)
        if not rest:
            return self.local.get_collection(name)
        if rest == ["index"]:
            self.indexes.append((name, body))
            return _DONE
        return _POINTS["/".join(rest), method](self.local, name, body)


def _upsert(local: QdrantClient, name: str, body: Any) -> Any:
    return local.upsert(name, TypeAdapter(list[models.PointStruct]).validate_python(body["points"]))


def _retrieve(local: QdrantClient, name: str, body: Any) -> Any:
    return local.retrieve(name, body["ids"], with_payload=body["with_payload"], with_vectors=body["with_vector"])


def _search(local: QdrantClient, name: str, body: Any) -> Any:
    requests = TypeAdapter(list[models.QueryRequest]).validate_python(body["searches"])
    return local.query_batch_points(name, requests)


def _scroll(local: QdrantClient, name: str, body: Any) -> Any:
    request = models.ScrollRequest(**body)
    points, following = local.scroll(
        name, request.filter, limit=request.limit, offset=request.offset, with_payload=request.with_payload
    )
    return {"points": points, "next_page_offset": following}


def _count(local: QdrantClient, name: str, body: Any) -> Any:
    request = models.CountRequest(**body)
    return local.count(name, request.filter, exact=request.exact)


def _delete(local: QdrantClient, name: str, body: Any) -> Any:
    return local.delete(name, models.FilterSelector(**body))


_DONE = models.UpdateResult(operation_id=1, status=models.UpdateStatus.COMPLETED)
_POINTS = {
    ("points", "PUT"): _upsert,
    ("points", "POST"): _retrieve,
    ("points/query/batch", "POST"): _search,
    ("points/scroll", "POST"): _scroll,
    ("points/count", "POST"): _count,
    ("points/delete", "POST"): _delete,
}


class QdrantExchange(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_of: QdrantServer

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        server, path = self.server_of, urlsplit(self.path).path
        server.seen.append((self.command, self.path, dict(self.headers), body))
        if server.behave is not None:
            server.behave(self)
            return
        with server.lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the local mode has no indexes
            try:
                result = server.result(self.command, path, json.loads(body or b"null"))
            except KeyError:
                self.answer(404, {"status": {"error": "Not found"}, "time": 0})
                return
        plain = TypeAdapter(Any).dump_python(result, mode="json")
        self.answer(200, {"result": server.forge(path, plain), "status": "ok", "time": 0.001})

    do_GET = do_PUT = do_POST = do_DELETE = do_any

    def answer(self, status: int, value: Any) -> None:
        self.reply(status, json.dumps(value).encode())

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Nothing: pytest shows what matters."""
