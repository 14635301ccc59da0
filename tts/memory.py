"""How much memory this process may take, and how much is taken: its container's, or the machine's where no limit is lower."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tts.cgroup import CGROUP, MEMBERSHIP, control_groups

_VERSION_2 = ("memory.current", "inactive_file", "active_file")
_VERSION_1 = ("memory.usage_in_bytes", "total_inactive_file", "total_active_file")


@dataclass(frozen=True)
class Memory:
    """A limit and what counts against it, in bytes."""

    limit: int
    working_set: int
    """As Kubernetes counts: without cached files that nobody used lately."""
    held: int
    """What the kernel cannot take back: without any cached files. It drops those before it kills, however often they are read."""
    of: str
    """Whose limit it is, in words."""

    @property
    def share(self) -> float:
        """How near it is to the limit, at which the kernel kills: from 0 to about 1."""
        return self.held / self.limit


def memory(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> Memory:
    """The limit that is nearest: the container's, of this process's group or one above it, or else the machine's."""
    machine = _machine()
    found = [counted(folder, limit) for folder, limit in _limited(machine.limit, cgroup, membership)]
    return max(found, key=lambda one: one.share, default=machine)


def memory_limit(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Bytes that this process may use: the machine's memory, or its container's limit where that is lower."""
    machine = int(psutil.virtual_memory().total)
    return min([machine, *(limit for _, limit in _limited(machine, cgroup, membership))])


def available_memory(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Bytes that can be taken without swapping, and without being killed for the container's limit."""
    machine = psutil.virtual_memory()
    left = (limit - counted(folder, limit).working_set for folder, limit in _limited(int(machine.total), cgroup, membership))
    return max(0, min([int(machine.available), *left]))


def counted(folder: Path, limit: int) -> Memory:
    """What the kernel counts in one control group of either version."""
    usage, unused_files, files = _VERSION_1 if (folder / _VERSION_1[0]).is_file() else _VERSION_2
    taken = int((folder / usage).read_text(encoding="ascii"))
    lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    counts = {name: int(value) for name, value in lines}
    working_set = taken - counts.get(unused_files, 0)
    return Memory(limit, working_set, working_set - counts.get(files, 0), "this container")


def _machine() -> Memory:
    machine = psutil.virtual_memory()
    used = int(machine.total - machine.available)
    return Memory(int(machine.total), used, used, "this machine")


def _limited(machine: int, cgroup: Path, membership: Path) -> Iterator[tuple[Path, int]]:
    """This process's groups that have a limit below the machine's memory, and that: version 1 writes no limit as a huge number."""
    for folder in control_groups("memory", cgroup, membership):
        limit = _limit(folder)
        if limit is not None and 0 < limit < machine:
            yield folder, limit


def _limit(folder: Path) -> int | None:
    """Version 2 kills above memory.max, and above memory.high it slows a process down until that gets nowhere."""
    files = [folder / name for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    limits = [text for file in files if file.is_file() and (text := file.read_text(encoding="ascii").strip()) != "max"]
    return min(map(int, limits), default=None)
