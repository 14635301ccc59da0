"""How many CPU cores this process may use."""

import math
import os
from pathlib import Path

from tts.cgroup import CGROUP, MEMBERSHIP, control_groups


def usable_cores(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Cores that this process may use: its affinity, or its container's CPU limit where that is lower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [limit for folder in control_groups("cpu", cgroup, membership) if (limit := _limit(folder)) is not None]
    return max(1, min([cores, *map(math.ceil, limits)]))


def _limit(folder: Path) -> float | None:
    """Cores' worth of time per period, or None where there is no limit."""
    if (folder / "cpu.max").is_file():
        quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
    elif (folder / "cpu.cfs_quota_us").is_file():
        quota, period = ((folder / name).read_text(encoding="ascii").strip() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    else:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
