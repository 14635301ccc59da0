"""A TCP relay before a server: what is down, hangs or comes back is the network, while the server, slow to start, lives on."""

import contextlib
import math
import re
import socket
import threading
import time
from collections.abc import Callable

from tests.mlflow_server import free_port


class Relay:
    """Passes connections on to a port, of this machine unless said; can refuse them, or take them and never answer."""

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self._target, self.port = (host, target), free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._answers = math.inf
        self._held: bytes | None = None
        self.late: list[bytes] = []
        """Requests that were held back."""

    def hold(self, text: bytes) -> None:
        """From now on requests with this text wait, like in the queue of a slow server, until `release`."""
        self._held = text

    def release(self) -> None:
        """Hands the held requests to the server; nobody waits for the answers any more."""
        self._held = None
        for request in self.late:
            with socket.create_connection(self._target) as far:
                far.sendall(request)
                far.recv(65536)

    def up(self) -> None:
        """From now on connections are passed on."""
        self.refuse()
        self._listener = _listen(self.port)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def up_for(self, answers: int) -> None:
        """From now on so many pieces of answers come back; what is asked then is heard, and its answer cut off."""
        self._answers = answers
        self.up()

    def hang(self) -> None:
        """From now on connections are taken by the system and heard by nobody."""
        self.refuse()
        self._listener = _listen(self.port)

    def refuse(self) -> None:
        """From now on nobody listens, and what was connected is cut off."""
        for connection in [*self._open, *([self._listener] if self._listener else [])]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self._listener, self._open = None, []

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()  # the server is away: whoever asked is told, and may ask again
                continue
            self._open += [near, far]
            threading.Thread(target=_pass, args=(near, far, self._may_ask), daemon=True).start()
            threading.Thread(target=_pass, args=(far, near, self._may_answer), daemon=True).start()

    def _may_ask(self, data: bytes, source: socket.socket) -> bool:
        if not self._held or self._held not in data:
            return True
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1])
        while len(body) < length:
            body += source.recv(65536)
        self.late.append(head + b"\r\n\r\n" + body)
        while self._held:
            time.sleep(0.02)
        return False

    def _may_answer(self, _data: bytes, _source: socket.socket) -> bool:
        self._answers -= 1
        return self._answers >= 0


def _listen(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def _pass(source: socket.socket, sink: socket.socket, may: Callable[[bytes, socket.socket], bool]) -> None:
    with contextlib.suppress(OSError):
        while (data := source.recv(65536)) and may(data, source):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
