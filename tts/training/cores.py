"""How many CPU threads a run may use."""

import torch

from tts.cores import usable_cores

__all__ = ["set_threads", "usable_cores"]


def set_threads(threads: int, processes: int = 1) -> None:
    """Gives torch `threads` CPU threads; 0 takes every usable core, or this process's share where several train together.

    Results are the same bit for bit only for the same number of threads.
    """
    torch.set_num_threads(threads or max(1, usable_cores() // processes))
