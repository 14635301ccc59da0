"""Arguments that lie in an object store: on this machine while a command runs, and published when it ends.

A command sees paths of this machine only. What it reads comes through the cache. What it makes or goes on with is worked on in a folder of the
cache, `work/`, held by one process at a time. That folder is there until its content was published: after a kill, or where the store was full or
out of reach, the same command goes on from it.
"""

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from tts.errors import TakenOverError, TtsError, UsageError
from tts.progress import Progress
from tts.storage import (
    cached_file,
    default_cache,
    exists,
    fetch,
    is_archive,
    is_remote,
    join,
    local,
    opened,
    prepare_folder,
    publish,
    published,
    write_bytes,
    write_text,
)

logger = logging.getLogger(__name__)

Use = Literal["read", "copied", "made", "continued", "local"]
"""read: through the cache. copied: a copy that is thrown away, for what is opened for writing. made: published when the command ended well.
continued: fetched first, and published at the end, also when the command was stopped. local: on this machine only."""
Kind = Literal["folder", "corpus", "file"]
"""corpus: a folder, or an archive of one."""


@dataclass(frozen=True)
class Folder:
    """Marks an argument as a folder or file, on this machine or in an object store."""

    use: Use = "read"
    kind: Kind = "folder"
    below: str = ""
    """As in "run/diagnostics": what it is where it is not given and the argument `run` lies in an object store."""

    def check(self, place: str | None) -> None:
        """Raises UsageError for a URI that can be none."""
        if place is not None and is_remote(place) and self.use == "local":
            raise UsageError(f"{place}: only a folder on this machine will do")


@contextmanager
def resolved(given: Mapping[str, str | None], marks: Mapping[str, Folder], progress: Progress) -> Iterator[dict[str, Any]]:
    """The arguments as paths while the block runs, and the results published after it.

    What is printed, and errors, name the places as they were given. Raises what fetching and publishing raise.
    """
    places = {name: place if place is not None else _default(marks[name], given) for name, place in given.items()}
    names: dict[str, str] = {}
    try:
        with ExitStack() as stack:
            paths = {name: None if place is None else _enter(stack, place, marks[name], progress) for name, place in places.items()}
            names |= {str(path): str(places[name]) for name, path in paths.items() if path is not None and path != Path(str(places[name]))}
            if names:
                stack.enter_context(contextlib.redirect_stdout(_Renaming(sys.stdout, names)))
            yield paths
    except TtsError as error:
        error.args = tuple(_renamed(str(part), names) for part in error.args)
        raise


def _default(mark: Folder, given: Mapping[str, str | None]) -> str | None:
    root, _, below = mark.below.partition("/")
    around = given.get(root)
    return join(around, below) if around is not None and is_remote(around) else None


def _enter(stack: ExitStack, place: str, mark: Folder, progress: Progress) -> Path:
    if mark.kind == "corpus" and is_archive(place):
        return opened(place, progress)
    if not is_remote(place):
        return Path(place)
    if mark.use == "read":
        return cached_file(place, default_cache(), progress) if mark.kind == "file" else local(place, progress=progress)
    return stack.enter_context(_worked_on(_Work(place.rstrip("/"), mark, progress)))


class _Work:
    """A place in the folder for work."""

    def __init__(self, place: str, mark: Folder, progress: Progress) -> None:
        self.place, self.mark, self._progress = place, mark, progress
        name = place.rsplit("/", 1)[-1]
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
        self.folder = default_cache() / "work" / f"{plain}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"
        self.path = self.folder / name
        self._note = self.folder / "published"
        """Digest of the publication that the work began from."""

    def begin(self) -> bool:
        """Empty, or what is at the place; True: left as it is, with what was never published."""
        base = published(self.place) if self.mark.use == "continued" else ""
        if self.mark.use == "continued" and self.path.is_dir() and self._note.is_file() and self._note.read_text(encoding="ascii") == base:
            logger.info("%s: going on with what was not published, from %s", self.place, self.folder)
            return True
        self.clear()
        if self.mark.use == "copied" or (self.mark.use == "continued" and (base or exists(self.place))):
            fetch(self.place, self.path, self._progress)
        write_text(self._note, base)
        return False

    def signature(self) -> set[tuple[str, int, int]]:
        """Differs where something was written."""
        found = [path for path in self.path.rglob("*") if path.is_file()] if self.path.is_dir() else []
        return {(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found}

    def publish(self) -> None:
        """Raises what `publish` raises, with where the work is kept."""
        try:
            if self.mark.kind == "file" and self.path.is_file():
                write_bytes(self.place, self.path.read_bytes())
            elif self.mark.kind == "folder" and self.path.is_dir():
                over = self._note.read_text(encoding="ascii") if self.mark.use == "continued" else None
                publish(self.path, self.place, self._progress, over=over)
        except TtsError as error:
            error.args = (f"{error}; what was made is kept in {self.folder}",)
            raise

    def clear(self) -> None:
        """Removes what is there."""
        if self.folder.is_dir():
            shutil.rmtree(self.folder)


@contextmanager
def _worked_on(work: _Work) -> Iterator[Path]:
    if os.environ.get("RANK", "0") != "0":  # one of torchrun's processes, of which only the first writes
        yield work.path
        return
    with _held(work):
        before = None if work.begin() else work.signature()
        try:
            yield work.path
        except (TtsError, KeyboardInterrupt) as error:
            if work.mark.use == "continued" and not isinstance(error, TakenOverError) and work.signature() != before:
                try:
                    work.publish()
                except TtsError as unpublished:
                    logger.error("%s", unpublished)  # noqa: TRY400  # what the command ended with is what it says last
                    raise error from None
            work.clear()
            raise
        if work.mark.use != "copied":
            work.publish()
        work.clear()


@contextmanager
def _held(work: _Work) -> Iterator[None]:
    """Keeps the work to this process. Raises UsageError where another has it, CannotWriteError."""
    prepare_folder(work.folder.parent)
    with work.folder.with_name(f"{work.folder.name}.lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process on this machine works on {work.place}; wait for it, or choose another place") from None
        yield


class _Renaming(io.TextIOBase):
    """Standard output, in which paths of this machine are told as the places that they stand for."""

    def __init__(self, out: TextIO, names: Mapping[str, str]) -> None:
        self._out, self._names = out, names

    def write(self, text: str) -> int:
        """Passes a text on."""
        self._out.write(_renamed(text, self._names))
        return len(text)

    def flush(self) -> None:
        """Passes on what waits."""
        self._out.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._out.isatty()

    def fileno(self) -> int:
        """Of the file behind it."""
        return self._out.fileno()


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for path in sorted(names, key=len, reverse=True):
        text = text.replace(path, names[path])
    return text
