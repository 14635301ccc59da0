"""How much memory a process may still take: the machine's, or the container's where that is less."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def available_memory(cgroup: Path = CGROUP) -> int:
    """Bytes that can be taken without swapping, and without being killed for the container's limit (cgroup v2 or v1)."""
    machine = int(psutil.virtual_memory().available)
    container = _left(cgroup)
    return machine if container is None else max(0, min(machine, container))


def _left(cgroup: Path) -> int | None:
    """What the container's limit leaves; None where there is none. Cached files that nobody used lately make room, as Kubernetes counts."""
    if (cgroup / "memory.max").is_file():
        limit, used, statistics, cached = cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "inactive_file"
    elif (cgroup / "memory" / "memory.limit_in_bytes").is_file():
        folder = cgroup / "memory"
        limit, used, statistics, cached = (
            folder / "memory.limit_in_bytes",
            folder / "memory.usage_in_bytes",
            folder / "memory.stat",
            "total_inactive_file",
        )
    else:
        return None
    allowed = limit.read_text(encoding="ascii").strip()
    if allowed == "max":
        return None
    lines = (line.split() for line in statistics.read_text(encoding="ascii").splitlines())
    spare = next((int(value) for name, value in lines if name == cached), 0)
    return int(allowed) - int(used.read_text(encoding="ascii")) + spare
