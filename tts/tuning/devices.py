"""Which of a machine's CUDA devices a local worker sees: without a share of its own each would train on the first."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/gpus")
VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices(environment: Mapping[str, str] = os.environ, driver: Path = DRIVER) -> tuple[str, ...]:
    """The devices that this process may use, as CUDA_VISIBLE_DEVICES names them; all that the driver knows where it is not set."""
    if VISIBLE in environment:
        return tuple(name.strip() for name in environment[VISIBLE].split(",") if name.strip())
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    return tuple(str(index) for index in range(count))


def share(devices: Sequence[str], worker: int, each: int) -> tuple[str, ...]:
    """The devices of one worker, `each` of them; where there are more workers than shares, some have the same.

    Fewer than `each` are all given to every worker: its trials then say that they are too few.
    """
    groups = len(devices) // each
    if not groups:
        return tuple(devices)
    first = worker % groups * each
    return tuple(devices[first : first + each])
