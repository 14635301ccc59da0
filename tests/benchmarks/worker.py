"""What a worker costs: time for each trial beside its training, and memory over many trials.

A study of tiny trials is run by `tts tune` with one worker on SQLite; afterwards some of its trials are trained once more in this process,
with nothing around them. Times come from the files that trials write: config.json just before the first step, run.json just after the last.
The gap from a trial's last message to the next one's first step holds all there is between: telling the study, taking the next
trial, building its network.

    python -m tests.benchmarks.worker
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import psutil
import torch

from tests.conftest import TINY
from tts.config import Config
from tts.config.load import from_mapping, override, to_json
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.loop import train
from tts.training.preemption import StopFlag

SETTLING, TRIALS = 6, 50
"""Trials before memory is looked at, and those over which it is."""
STUDY = {
    "tuning.trials": SETTLING + TRIALS + 1, "tuning.steps": 8, "tuning.validation_interval": 4, "tuning.pruner": "none", "tuning.workers": 1,
}  # fmt: skip
AGAIN = 12
"""Trials that are trained once more, bare."""
EDGE = 5
"""Samples of memory that are averaged at either end."""
MINUTE = 60.0


def measure() -> dict[str, float]:
    """worker_overhead_share: what a trial takes longer than its training, as a share of a trial of a minute. Medians; memory in MiB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = override(demo(), TINY | STUDY)
        write_demo_corpus(folder / "corpus", language="en", utterances=20, seed=0, progress=Silent())
        prepare(folder / "corpus", folder / "features", config, progress=Silent())
        resident = _tune(folder, config)
        runs = [folder / "study" / "trials" / str(number) for number in range(SETTLING, SETTLING + TRIALS)]
        begun = [(run / "config.json").stat().st_mtime for run in runs]
        ended = [(run / "run.json").stat().st_mtime for run in runs]
        bare = median(_train_bare(folder, run) for run in runs[:AGAIN])
    interval = median(later - earlier for earlier, later in pairwise(begun))
    growth = {name: mean(sizes[-EDGE:]) - mean(sizes[:EDGE]) for name, sizes in resident.items()}
    return {
        "worker_overhead_share": (interval - bare) / MINUTE,
        "gap_between_trials_seconds": median(later - earlier for earlier, later in zip(ended, begun[1:], strict=False)),
        "trial_bare_seconds": bare,
        "worker_memory_growth_over_50_trials": sum(growth.values()) * TRIALS / (TRIALS - EDGE),
        "worker_memory": mean(resident["worker"][-EDGE:]),
        "trial_server_memory": mean(resident["server"][-EDGE:]),
    }


def _tune(folder: Path, config: Config) -> dict[str, list[float]]:
    """Runs the study; resident memory of its worker and of the server that trials are forked from, at the end of each trial after the first few."""
    (folder / "study.json").write_text(to_json(config), encoding="utf-8")
    command = [sys.executable, "-m", "tts.cli", "tune", folder / "features", folder / "study", "--config", folder / "study.json"]
    resident: dict[str, list[float]] = {"worker": [], "server": []}
    with _running(command) as tuning:
        for number in range(1, SETTLING + TRIALS + 1):
            while not (folder / "study" / "trials" / str(number) / "config.json").exists():
                if tuning.poll() is not None:
                    raise RuntimeError(f"the study ended early, with exit code {tuning.returncode}")
                time.sleep(0.01)
            if number > SETTLING:
                for name, process in _processes(tuning.pid).items():
                    resident[name].append(process.memory_info().rss / 2**20)
        if tuning.wait() != 0:
            raise RuntimeError(f"the study ended with exit code {tuning.returncode}")
    return resident


@contextmanager
def _running(command: list[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=sys.stderr) as process:
        try:
            yield process
        finally:
            process.terminate()  # its workers end with it


def _processes(tuning: int) -> dict[str, psutil.Process]:
    (worker,) = (child for child in psutil.Process(tuning).children() if "tts.tuning" in child.cmdline())
    (server,) = (child for child in worker.children() if "forkserver" in " ".join(child.cmdline()))
    return {"worker": worker, "server": server}


def _train_bare(folder: Path, run: Path) -> float:
    """Seconds from opening the features to the last checkpoint."""
    config = from_mapping(json.loads((run / "config.json").read_text(encoding="utf-8")), "trial")
    begun = time.perf_counter()
    for _ in train(FeatureStore.open(folder / "features"), config, folder / "bare" / run.name, progress=Silent(), stop=StopFlag()):
        pass
    return time.perf_counter() - begun


if __name__ == "__main__":
    torch.set_num_threads(1)
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
