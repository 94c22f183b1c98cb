"""HTTP of the loopback W&B server: GraphQL, the file stream, and files put and fetched."""

from __future__ import annotations

import gzip
import json
import socket
import sys
import urllib.parse
from collections.abc import Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tests.adapters.wandb.graphql_toy import Query

if TYPE_CHECKING:
    from tests.adapters.wandb.wandb_server import WandbServer


class Http(ThreadingHTTPServer):
    """Serves each connection in a thread."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.connections: set[socket.socket] = set()
        self.errors: list[str] = []
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection: a server that is stopped closes those that are kept alive."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Note what went wrong, but for connections that a client, or `stop`, has closed."""
        error = sys.exception()
        if not isinstance(error, OSError):
            self.errors.append(repr(error))

    def server_close(self) -> None:
        """Close all."""
        super().server_close()
        for connected in self.connections:
            with suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Answers for the server that owns it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: WandbServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base's name
        """Print nothing."""

    def do_POST(self) -> None:
        """GraphQL, the file stream, and telemetry."""
        body, path = self._body(), urllib.parse.urlsplit(self.path).path
        if path == "/graphql":
            content = json.loads(body)
            query = Query(content["query"], content.get("variables") or {})
            self.owner.operations[query.name] += 1
            refusal = self.owner.refusal()
            if refusal is not None:
                self._send({"errors": [{"message": "refused by the test"}]}, *refusal)
                return
            try:
                self._send({"data": self.owner.answer(query)})
            except Exception as error:  # noqa: BLE001  # a test must hear of it, in the client's words
                self._send({"data": None, "errors": [{"message": f"{query.name}: {error!r}"}]})
        elif path.endswith("/file_stream"):
            _, _, entity, project, name, _ = map(urllib.parse.unquote, path.split("/"))
            self.owner.stream(entity, project, name, json.loads(body))
            self._send({"exitcode": None, "limits": {}})
        else:
            self._send({}, 200 if path.startswith("/sdk/otel") else 404)

    def do_PUT(self) -> None:
        """Take a file."""
        self.owner.blobs[self._stored] = self._body()
        self._send({})

    def do_GET(self) -> None:
        """Give a file."""
        found = self.owner.blobs.get(self._stored)
        self._send({} if found is None else found, 404 if found is None else 200)

    @property
    def _stored(self) -> str:
        return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).removeprefix("/storage")

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, content: Any, status: int = 200, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
