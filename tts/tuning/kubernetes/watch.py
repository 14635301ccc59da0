"""A picture of objects in the cluster that keeps itself current: list, then watch, and list again now and then, in a thread."""

import json
import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import urllib3

from tts.tuning.kubernetes.access import TIMEOUT, Cluster, OutOfReachError, RefusedError

logger = logging.getLogger(__name__)

PAGE = 250
"""Objects of a list that are in memory at a time."""
WATCH_SECONDS = 240
"""After which the server ends a watch, and another begins where it ended."""
SILENCE_SECONDS = 120.0
"""Of a watch, after which its connection counts as dead: the server sends a bookmark every minute."""
PAUSE_SECONDS = 0.2, 10.0
"""Before the next attempt after a failure: the first pause, which doubles, and the longest."""
GONE = 410
"""Status of a version that the server has forgotten."""


class Book(Protocol):
    """Keeps what is needed of each object."""

    def seen(self, item: Mapping[str, Any]) -> None:
        """An object, new or changed or as before."""

    def gone(self, uid: str) -> None:
        """An object was deleted."""

    def only(self, uids: set[str]) -> None:
        """These are all there are."""


class Watch:
    """Keeps a book of the objects of one kind that a selector chooses. A lost connection is made again from the last version seen."""

    def __init__(self, cluster: Cluster, resource: str, selector: Mapping[str, str], book: Book, *, relist_seconds: float) -> None:
        self._cluster, self.resource, self._selector, self._book = cluster, resource, dict(selector), book
        self._relist_seconds = relist_seconds
        self._version, self._listed, self._fails = "", 0.0, 0
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._stopping, self._current = threading.Event(), threading.Event()
        self._failure: tuple[float, OutOfReachError | RefusedError] | None = None
        self.connections = 0
        """Watches begun."""
        self._thread = threading.Thread(target=self._run, name=f"watch {resource}", daemon=True)

    def start(self) -> None:
        """Begins; what is there is known soon after."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; does not wait."""
        self._stopping.set()
        answer = self._answer
        if answer is not None:
            try:
                answer.shutdown()
            except (ValueError, RuntimeError, OSError):  # it ended by itself meanwhile
                logger.debug("watch of %s: was at its end", self.resource)

    @property
    def broken(self) -> bool:
        """Whether its thread ended by a defect, which is on standard error."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping.is_set()

    @property
    def current(self) -> bool:
        """Whether the book has been complete once."""
        return self._current.is_set()

    def wait(self, seconds: float) -> bool:
        """Until it is."""
        return self._current.wait(seconds)

    @property
    def failure(self) -> tuple[float, OutOfReachError | RefusedError] | None:
        """Seconds for which nothing could be learned, and why; None: all is well."""
        failure = self._failure
        return None if failure is None else (time.monotonic() - failure[0], failure[1])

    def _run(self) -> None:
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                if not self._version or begun - self._listed > self._relist_seconds:
                    self._list()
                self._watch()
                self._well()
                # A server, or a proxy before it, that ends each watch at once is not to be asked without a pause.
                self._stopping.wait(max(0.0, PAUSE_SECONDS[0] - (time.monotonic() - begun)))
            except (OutOfReachError, RefusedError) as error:
                self._fail(error)

    def _fail(self, error: OutOfReachError | RefusedError) -> None:
        if isinstance(error, RefusedError) and error.status == GONE and self._version:
            self._version = ""
            return
        self._failure = self._failure[0] if self._failure else time.monotonic(), error
        logger.debug("watch of %s: %s", self.resource, error)
        pause = min(PAUSE_SECONDS[0] * 2.0 ** min(self._fails, 10), PAUSE_SECONDS[1]) * random.uniform(0.5, 1)
        self._fails += 1
        self._stopping.wait(pause)

    def _well(self) -> None:
        self._failure, self._fails = None, 0

    def _list(self) -> None:
        uids: set[str] = set()
        query: dict[str, Any] = {**self._selector, "limit": PAGE}
        while True:
            page = self._cluster.read("GET", self.resource, query=query)
            for item in page["items"]:
                uids.add(item["metadata"]["uid"])
                self._book.seen(item)
            following = page["metadata"].get("continue")
            if not following:
                break
            query["continue"] = following
        self._book.only(uids)
        self._version, self._listed = page["metadata"]["resourceVersion"], time.monotonic()
        self._well()
        self._current.set()

    def _watch(self) -> None:
        """Until the server ends it, or it is time for a list."""
        left = max(1, min(WATCH_SECONDS, int(self._relist_seconds - (time.monotonic() - self._listed))))
        query = {
            **self._selector, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": self._version, "timeoutSeconds": left,
        }  # fmt: skip
        answer = self._cluster.request("GET", self.resource, query=query, timeout=(TIMEOUT[0], SILENCE_SECONDS))
        self._answer = answer
        self.connections += 1
        self._well()
        try:
            lines = _lines(answer)
            while not self._stopping.is_set() and (line := next(lines, None)) is not None:
                self._take(json.loads(line))
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise OutOfReachError(str(error)) from error
        finally:
            self._answer = None
            answer.close()

    def _take(self, event: Mapping[str, Any]) -> None:
        item = event["object"]
        if event["type"] == "ERROR":
            if item.get("code") == GONE:
                raise RefusedError(GONE, str(item.get("reason")), str(item.get("message")))
            raise OutOfReachError(str(item.get("message")))
        if event["type"] == "DELETED":
            self._book.gone(item["metadata"]["uid"])
        elif event["type"] in ("ADDED", "MODIFIED"):
            self._book.seen(item)
        self._version = item["metadata"]["resourceVersion"]


def _lines(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for piece in answer.stream(65536):
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line for line in whole if line.strip())
