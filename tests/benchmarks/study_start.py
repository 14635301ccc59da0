"""Sixteen processes that all create and use one fresh study at the same moment: how many live.

A process lives if it creates or opens the study, takes a trial, reports and finishes it. Plain Optuna: `create_study(load_if_exists=True)`, ask,
report, tell. Ours: what `tts tune` does. The first moment counts: processes are forked with everything loaded and let go together.

    python -m tests.benchmarks.study_start
"""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
from optuna.trial import TrialState

from tests.benchmarks.study_rate import plan_of
from tests.postgresql import postgres_server
from tts.tuning.database.address import canonical
from tts.tuning.search.pruning import judge
from tts.tuning.study import create_study
from tts.tuning.work.queue import take

PROCESSES = 16
Join = Callable[[str, Path, Barrier, int], None]


def measure() -> dict[str, float]:
    """How many of PROCESSES live, of ours and with plain Optuna, on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as name, postgres_server() as server:
        folder = Path(name)
        return {
            "sqlite_fresh_start_alive_of_16": alive(ours, f"sqlite:///{folder / 'ours.db'}", folder),
            "postgresql_fresh_start_alive_of_16": alive(ours, server.database(), folder),
            "sqlite_fresh_start_alive_of_16_optuna": alive(plain, f"sqlite:///{folder / 'plain.db'}", folder),
            "postgresql_fresh_start_alive_of_16_optuna": alive(plain, canonical(server.database()), folder),
        }


def alive(join: Join, url: str, folder: Path) -> int:
    """How many of the processes end well."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(PROCESSES)
    processes = [context.Process(target=_quietly, args=(join, url, folder, barrier, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return sum(process.exitcode == 0 for process in processes)


def ours(url: str, folder: Path, barrier: Barrier, number: int) -> None:
    """Create or open, take, report, finish."""
    plan = plan_of("none", folder / "study")
    barrier.wait()
    study = create_study(url, "study", plan)
    held = take(study, f"worker{number}", lambda: False)
    if held is None:
        raise RuntimeError("no trial for this worker")
    judge(study.trials, study.storage, held.trial, held.lease, 1, 1.0)
    study.storage.finish(held.id, held.lease, TrialState.COMPLETE, [1.0], {})


def plain(url: str, folder: Path, barrier: Barrier, number: int) -> None:
    """The same with Optuna's own means."""
    barrier.wait()
    study = optuna.create_study(storage=url, study_name="study", load_if_exists=True)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    trial.report(1.0, 1)
    study.tell(trial, 1.0)


def _quietly(join: Join, url: str, folder: Path, barrier: Barrier, number: int) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # fifteen tracebacks are expected of the peer
    join(url, folder, barrier, number)


if __name__ == "__main__":
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
