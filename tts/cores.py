"""How many CPU cores this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = CGROUP) -> int:
    """Cores that this process may use: its affinity, or the container's CPU limit (cgroup v2 or v1) where that is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _cgroup_limit(cgroup)
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def _cgroup_limit(cgroup: Path) -> float | None:
    """Cores' worth of time per period, or None where there is no limit."""
    if (cgroup / "cpu.max").is_file():
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    elif (cgroup / "cpu" / "cpu.cfs_quota_us").is_file():
        quota, period = ((cgroup / "cpu" / name).read_text(encoding="ascii").strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    else:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
