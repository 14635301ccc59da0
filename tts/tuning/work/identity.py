"""Who a worker is: its name says on which host it runs, and since which start of that host."""

import platform
import re
import uuid
from functools import cache
from pathlib import Path


def new_worker() -> str:
    """A name that no other worker has."""
    return f"{_host()}-{uuid.uuid4().hex[:12]}"


def is_of_this_host(worker: str) -> bool:
    """Whether a worker runs, or ran, on this host since it was started: then a file lock tells whether it lives."""
    return worker.rpartition("-")[0] == _host()


@cache
def _host() -> str:
    """The host's name and the start of its kernel (Linux' boot id; elsewhere the name alone)."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = re.sub(r"[^A-Za-z0-9.-]", "_", platform.node()) or "host"
    return f"{name}-{boot.read_text(encoding='ascii')[:8]}" if boot.is_file() else name
