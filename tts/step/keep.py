"""What outlives a step whose `work` is a URI: its folder is fetched before, and published after, or while it grows."""

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tts.errors import DataError, TtsError
from tts.progress import Lines
from tts.storage import exists, fetch, is_remote, join, publish, read_bytes, write_bytes

if TYPE_CHECKING:
    from tts.tuning.work.publisher import Publisher

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""Between looks whether a run has a new checkpoint."""
LAST_SECONDS = 600.0
"""For the last state of a run to be published."""


@contextmanager
def kept(folder: Path, work: str, name: str) -> Iterator[None]:
    """Around a stage: `folder` begins as an attempt before left it in `work`, and is there for the next when the block ends well.

    Nothing is done where `work` is a folder, which keeps by itself, or empty. Raises DataError, ServiceUnavailableError, UsageError.
    """
    if not work or not is_remote(work):
        yield
        return
    place = join(work, name)
    if exists(place):
        _fetch(place, folder)
    yield
    publish(folder, place, Lines())


@contextmanager
def kept_as_it_grows(run: Path, work: str, name: str) -> Iterator[None]:
    """As `kept`, for a training run: each checkpoint is published as it comes, in a state of its own, whole or not there.

    `work/<name>.state` names the newest state.
    """
    if not work or not is_remote(work):
        yield
        return
    from tts.tuning.work.publisher import Publisher, discard

    pointer = join(work, f"{name}.state")
    before = _fetch_state(pointer, run)

    def tell(state: str) -> None:
        write_bytes(pointer, f"{state}\n".encode())
        while before:
            discard(before.pop())

    # Beside the run, because links do not reach into another file system.
    with TemporaryDirectory(prefix=".states-", dir=run.parent) as scratch:
        # A prefix of this attempt's own: the state that the pointer names stays whole whatever happens to this one.
        publisher = Publisher(run, join(work, name, uuid.uuid4().hex[:12]), Path(scratch), tell)
        with _watching(run, publisher):
            yield


def _fetch_state(pointer: str, run: Path) -> list[str]:
    """Brings back the newest state; the states that are superseded by the next one."""
    if not exists(pointer):
        return []
    state = read_bytes(pointer).decode(errors="replace").strip()
    _fetch(state, run)
    return [state]


def _fetch(place: str, folder: Path) -> None:
    logger.info("fetching what an earlier attempt left at %s", place)
    try:
        fetch(place, folder, Lines())
    except DataError as error:
        # The same is made again: that costs time and nothing else.
        logger.warning("this step begins anew, for what was left cannot be used: %s", error)


@contextmanager
def _watching(run: Path, publisher: "Publisher") -> Iterator[None]:
    """Offers each state with a new checkpoint from a thread, and the last one at the end, however it ends."""
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(run, publisher, done), name="states", daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        if run.is_dir():
            _offer(publisher)
            problem = publisher.finish(lambda: None, lambda waited: LAST_SECONDS - waited)
            if problem:
                logger.warning("the last state of the run was not published: %s", problem)
        publisher.close()


def _watch(run: Path, publisher: "Publisher", done: threading.Event) -> None:
    index, seen = run / "checkpoints" / "index.json", b""
    while not done.wait(LOOK_SECONDS):
        written = index.read_bytes() if index.is_file() else b""
        if written != seen and _offer(publisher):
            seen = written


def _offer(publisher: "Publisher") -> bool:
    """Whether the run as it is now is on its way. It may be written to meanwhile: what a kill at this moment would leave can be gone on from."""
    try:
        publisher.offer()
    except FileNotFoundError:
        return False  # a checkpoint gave way to a newer one meanwhile
    except TtsError as error:
        logger.warning("a state of the run cannot be published: %s", error)
        return False
    return True
