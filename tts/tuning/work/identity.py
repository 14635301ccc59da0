"""Who a worker is: its name says on which host it runs, and since which start of that host."""

import hashlib
import platform
import re
import uuid
from functools import cache
from pathlib import Path


def new_worker(ground: Path | None = None) -> str:
    """A name that no other worker has. `ground`: a folder of this machine alone, by which workers that share it know each other."""
    return f"{_host(ground)}-{uuid.uuid4().hex[:12]}"


def is_of_this_host(worker: str, ground: Path | None = None) -> bool:
    """Whether a worker runs, or ran, on this host since it was started: then a file lock tells whether it lives.

    Two containers may have one host's name and its kernel, and see nothing of each other's files; their folders `ground` are different ones.
    """
    return worker.rpartition("-")[0] == _host(ground)


def _host(ground: Path | None) -> str:
    """The host's name and the start of its kernel (Linux' boot id; elsewhere the name alone); beside a `ground` a digest of both ids."""
    name, boot = _machine()
    if ground is None:
        return f"{name}-{boot}" if boot else name
    found = ground.stat()
    return f"{name}-{hashlib.blake2b(f'{boot} {found.st_dev} {found.st_ino}'.encode(), digest_size=4).hexdigest()}"


@cache
def _machine() -> tuple[str, str]:
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = re.sub(r"[^A-Za-z0-9.-]", "_", platform.node()) or "host"
    return name, boot.read_text(encoding="ascii")[:8] if boot.is_file() else ""
