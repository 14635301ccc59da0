"""An HTTP server between us and the object store: it sees each request, and can cut answers off or give its own."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass
class Wire:
    """What passes through. Requests are told as in "GET /bucket/key"."""

    uri: str = ""
    requests: list[str] = field(default_factory=list)
    body_bytes: int = 0
    """Of the answers, as passed on."""
    before: Callable[[str], None] = lambda _: None
    """Called before a request is passed on."""
    cut_after: Callable[[str], int | None] = lambda _: None
    """Bytes of the answer's body after which the connection is closed; None: all pass."""
    answer: Callable[[str], tuple[int, bytes] | None] = lambda _: None
    """Status and body that stand for the server's; None: the server's own."""

    def gets(self, key: str) -> int:
        """How often an object's content was asked for."""
        return sum(request.startswith("GET ") and request.endswith(f"/{key}") for request in self.requests)


@contextmanager
def wire(target: str) -> Iterator[Wire]:
    """A wire to a server's address."""
    seen, lock = Wire(), threading.Lock()
    host = urlsplit(target).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            told = f"{self.command} {self.path}"
            with lock:
                seen.requests.append(told)
            seen.before(told)
            own = seen.answer(told)
            if own is not None:
                self._give(own[0], {"Content-Type": "application/xml"}, own[1], None)
                return
            far = http.client.HTTPConnection(host, timeout=60)
            far.request(self.command, self.path, body, {**self.headers, "Connection": "close"})
            answer = far.getresponse()
            self._give(answer.status, dict(answer.getheaders()), answer.read(), seen.cut_after(told))
            far.close()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass

        def _give(self, status: int, headers: dict[str, str], body: bytes, cut: int | None) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", headers.get("Content-Length", str(len(body))) if self.command == "HEAD" else str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut] if self.command != "HEAD" else b"")
            with lock:
                seen.body_bytes += len(body[:cut])
            if cut is not None:
                self.close_connection = True

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  # its name in the library
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed is no error here."""

    server = Server(("127.0.0.1", 0), Handler)
    seen.uri = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
