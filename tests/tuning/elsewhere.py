"""Workers that share nothing but the database and the object store: each in processes of its own, with a TMPDIR of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from tts.training.metrics_log import WALL_CLOCK_FIELDS
from tts.training.run_folder import read_state
from tts.tuning.study import Study
from tts.tuning.work.runs import run_folder


def worker(study: Study, features: Path | str, machine: Path, *options: str, environment: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
    """`tts worker` on another machine: its temporary folder is `machine`, and its log there."""
    machine.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "tts.cli", "worker", str(features), "--study", study.name, *options]
    surroundings = {**os.environ, "TTS_STORAGE": study.url, "TMPDIR": str(machine), "CUDA_VISIBLE_DEVICES": "", **environment}
    with (machine / "log").open("ab") as log:
        return subprocess.Popen(line, env=surroundings, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """The worker alone: the process of its trial finds out by itself."""
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def published(study: Study, number: int = 0) -> dict[str, object]:
    """What is known of a trial's run by its last state in the object store: weights and optimiser, and what was measured at each step."""
    with run_folder(study, study.trials.trials[number]) as run:
        newest = max((run / "checkpoints").glob("step-*.pt"))
        content = torch.load(newest, weights_only=True)
        del content["config"]["tuning"]  # it says where the runs are
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        state = read_state(run)
        return {"file": newest.name, "content": content, "lines": lines, "state": (state.state, state.step) if state else None}


def same(one: object, other: object) -> bool:
    """Bit for bit, but for the clock."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and one.keys() == other.keys()
            and all(same(one[name], other[name]) for name in one if name not in WALL_CLOCK_FIELDS)
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    return one == other
