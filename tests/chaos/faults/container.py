"""A container's memory limit: a control group of our own, for one process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from tts.model.postnet import Postnet

LIMIT = 2**31
"""Bytes."""
MOUNTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup"))
"""Of version 1 and version 2."""
FILES = (("memory.limit_in_bytes", "memory.usage_in_bytes"), ("memory.max", "memory.current"))
"""Names of the limit and of what counts against it, in each version."""


@contextmanager
def container() -> Iterator[Path]:
    """A new control group with LIMIT bytes of memory; whoever is in it has to be gone when the block ends. Raises OSError where we may not."""
    mount = next((mount for mount in MOUNTS if mount.is_dir()), MOUNTS[-1])
    group = mount / f"chaos-{uuid4().hex}"
    group.mkdir()
    try:
        limit = next(group / names[0] for names in FILES if (group / names[1]).exists() or names is FILES[-1])
        limit.write_text(str(LIMIT), encoding="ascii")
        yield group
    finally:
        group.rmdir()


def hindrance() -> str:
    """Why there can be no container here; empty where there can."""
    try:
        with container():
            return ""
    except OSError as error:
        return f"no control group of our own: {error.strerror}"


def fill(group: Path, share: float, number: int) -> None:
    """This process enters the group and, in its training batch of that number, from 1, takes what is left of `share` of its memory, and keeps it."""
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    usage = next(group / names[1] for names in FILES if (group / names[1]).exists())
    kept, batches = list[NDArray[np.uint8]](), list[None]()

    def on_forward(module: nn.Module, _inputs: object) -> None:
        if isinstance(module, Postnet) and module.training:
            batches.append(None)
            if len(batches) == number:
                kept.append(np.ones(max(0, int(share * LIMIT) - int(usage.read_text(encoding="ascii"))), dtype=np.uint8))

    register_module_forward_pre_hook(on_forward)
