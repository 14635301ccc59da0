"""What resident memory does over many steps of one run, batches of mixed lengths, and what the watch over memory costs.

The allocators keep blocks for later, so memory rises until every length has been seen: what counts is the growth after that. The growth over many
trials of a worker is in worker.py.

    python -m tests.benchmarks.leaks
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import psutil
import torch

from tests.conftest import TINY
from tts.config.load import override
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.data.store import FeatureStore
from tts.memory import memory
from tts.progress import Silent
from tts.training.memory import LOOK_SECONDS
from tts.training.ranks import ALONE
from tts.training.updates import Updates

SETTLING, STEPS, EDGE = 200, 400, 20
"""Steps before memory is looked at, those over which it is, and those that are averaged at either end."""
LOOKS = 1000


def measure() -> dict[str, float]:
    """Growth over STEPS steps in MiB; the watch's share of the time, for steps of any length."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = override(demo(), TINY | {"data.frame_budget": 600})
        write_demo_corpus(folder / "corpus", language="en", utterances=40, seed=0, progress=Silent())
        prepare(folder / "corpus", folder / "features", config, progress=Silent())
        updates, process = Updates(FeatureStore.open(folder / "features"), config, ALONE), psutil.Process()
        resident, lengths = [], set()
        for step in range(SETTLING + STEPS):
            _, batch = updates.make()
            lengths.add(batch.mel_BTM.shape[1])
            if step >= SETTLING:
                resident.append(process.memory_info().rss / 2**20)
    looks = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        memory()
        looks.append(time.perf_counter() - begun)
    return {
        "resident_growth_over_400_steps": mean(resident[-EDGE:]) - mean(resident[:EDGE]),
        "resident": mean(resident[-EDGE:]),
        "batch_lengths": len(lengths),
        "memory_look_seconds": median(looks),
        "memory_watch_share": median(looks) / LOOK_SECONDS,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
