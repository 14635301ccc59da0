"""Where a worker stands: the folder with its locks, and with its runs.

Without `tuning.runs_uri` that is the study's folder, which all workers share. With it each machine has a folder of its own for a study's workers,
below TMPDIR, and each worker one of its own inside: what lasts is in the object store. A container's file system is a machine of its own here.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tts.errors import CannotWriteError
from tts.storage import reporting
from tts.tuning.database.address import public
from tts.tuning.database.lock import is_locked, locked
from tts.tuning.study import Plan, Study
from tts.tuning.work.identity import is_of_this_host, new_worker


def worker_lock(folder: Path, worker: str) -> Path:
    """The lock that a worker holds as long as it lives."""
    return folder / ".locks" / f"worker-{worker}"


@dataclass(frozen=True)
class Ground:
    """The folder of a study's workers, as this machine sees it."""

    folder: Path
    shared: bool
    """With workers on other machines."""

    def lives(self, worker: str) -> bool | None:
        """Whether a worker lives; None for one of another machine, about which file locks say nothing."""
        if not (self.shared or self.folder.is_dir()) or not is_of_this_host(worker, None if self.shared else self.folder):
            return None
        return is_locked(worker_lock(self.folder, worker))

    def living(self) -> set[str]:
        """Workers that live on this machine."""
        return {lock.name.removeprefix("worker-") for lock in self.folder.glob(".locks/worker-*") if is_locked(lock)}

    def scratch(self, worker: str) -> Path:
        """The folder in which a worker keeps runs: its own, or the study's."""
        return self.folder if self.shared else self.folder / worker

    @contextmanager
    def signed_on(self) -> Iterator[str]:
        """The name of a new worker, which is known to live while the block runs. Raises CannotWriteError."""
        if not self.shared:
            self._prepare()
        worker = new_worker(None if self.shared else self.folder)
        lock = worker_lock(self.folder, worker)
        with reporting(lock), locked(lock):
            try:
                yield worker
            finally:
                if not self.shared:
                    shutil.rmtree(self.scratch(worker), ignore_errors=True)
                lock.unlink(missing_ok=True)  # somebody may have cleared the folder

    def _prepare(self) -> None:
        """Makes the folder, ours alone, and removes what killed workers left in it."""
        with reporting(self.folder):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_uid != os.getuid():
                raise CannotWriteError(f"{self.folder} is another user's; remove it, or set TMPDIR to a folder of your own")
            for left in self.folder.iterdir():
                if left.is_dir() and not left.name.startswith(".") and not is_locked(worker_lock(self.folder, left.name)):
                    shutil.rmtree(left, ignore_errors=True)  # two workers that begin may be at it


def ground_of(study: Study, plan: Plan) -> Ground:
    """Where the study's workers stand on this machine."""
    if not plan.config.tuning.runs_uri:
        return Ground(plan.folder, shared=True)
    key = hashlib.blake2b(f"{public(study.url)} {study.name}".encode(), digest_size=8).hexdigest()
    return Ground(Path(tempfile.gettempdir()).resolve() / f"tts-{os.getuid()}-{key}", shared=False)
