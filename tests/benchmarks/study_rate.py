"""Trials per second of eight workers that share a study, ours against plain Optuna, in turn in one run.

Six floats, ten reports, a trivial objective: what is measured is the study. Sampler (TPE as the product sets it up) and pruner are the same.
Plain Optuna: ask, then report and should_prune ten times, tell; its storage with its own settings. Ours: take, judge, finish, with lease,
heartbeat and budget, as a worker does. Workers are forked with everything loaded, connect, and are let go together; the clock runs from
there to the last trial.

    python -m tests.benchmarks.study_rate
"""

import json
import multiprocessing
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from tests.postgresql import postgres_server
from tts.config.load import override
from tts.config.presets import demo
from tts.tuning.database.address import canonical
from tts.tuning.database.engine import engine_options
from tts.tuning.search.pruning import judge
from tts.tuning.search.strategy import pruner, sampler
from tts.tuning.study import Plan, create_study, open_study, space_of
from tts.tuning.work.queue import take

WORKERS, REPORTS, ROUNDS = 8, 10, 2
KNOBS = (
    "optimiser.learning_rate", "optimiser.clip_norm", "losses.gate_weight", "guided_attention.weight", "guided_attention.sigma",
    "model.encoder_dropout",
)  # fmt: skip
TRIALS = {"postgresql": 40, "hyperband": 24, "sqlite": 16, "sqlite_wal": 40}
"""Of each side in each round: a few seconds for the slower one."""
Work = Callable[[str, Plan, int, int], Iterator[None]]


def measure() -> dict[str, float]:
    """Rates are trials per second of all workers; ratios are ours over plain Optuna's, medians of the rounds; above 1 speaks for ours."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name, postgres_server() as server:
        folder = Path(name)
        files = iter(range(1000))

        def file() -> str:
            return f"sqlite:///{folder / f'{next(files)}.db'}"

        for case, pruning, database, peer in (
            ("postgresql", "none", server.database, plain),
            ("hyperband", "hyperband", server.database, plain),
            ("sqlite", "none", file, plain),
            ("sqlite_wal", "none", file, plain_wal),
        ):
            plan = plan_of(pruning, folder / "study")
            rates: dict[str, list[float]] = {"ours": [], "optuna": []}
            for _ in range(ROUNDS):
                rates["optuna"].append(_rate(peer, database(), plan, TRIALS[case]))
                rates["ours"].append(_rate(ours, database(), plan, TRIALS[case]))
            ratio = "hyperband_rate_vs_optuna" if case == "hyperband" else f"trials_rate_vs_optuna_{case}"
            rate = "hyperband_rate_postgresql" if case == "hyperband" else f"trials_rate_{case}"
            figures[ratio] = median(mine / theirs for mine, theirs in zip(rates["ours"], rates["optuna"], strict=True))
            figures[rate] = median(rates["ours"])
            figures[f"{rate}_optuna"] = median(rates["optuna"])
    return figures


def plan_of(pruning: str, folder: Path) -> Plan:
    """A study of six floats with ten reports a trial that never spends its budget here."""
    knobs = {"knobs": KNOBS, "pruner": pruning, "trials": 100_000, "steps": REPORTS, "validation_interval": 1}
    return Plan.of(override(demo(), {f"tuning.{name}": value for name, value in knobs.items()}), "0123", folder)


def loss(params: Mapping[str, Any], step: int) -> float:
    """A bowl that is approached: better values are better from the first report on."""
    return sum((float(value) - 0.1) ** 2 for value in params.values()) * (1 + 1 / step)


def ours(url: str, plan: Plan, trials: int, worker: int) -> Iterator[None]:
    """A worker of the product; waits once when it is connected."""
    study = open_study(url, "study")
    yield
    for _ in range(trials):
        held = take(study, f"worker{worker}", lambda: False)
        if held is None:
            raise RuntimeError("no trial for this worker")
        state = TrialState.COMPLETE
        for step in range(1, REPORTS + 1):
            value = loss(held.trial.params, step)
            if judge(study.trials, study.storage, held.trial, held.lease, step, value):
                state = TrialState.PRUNED
                break
        study.storage.finish(held.id, held.lease, state, [value], {})


def plain(url: str, plan: Plan, trials: int, worker: int) -> Iterator[None]:
    """A worker of plain Optuna; waits once when it is connected."""
    yield from _plain(RDBStorage(canonical(url), skip_table_creation=True), plan, trials, worker)


def plain_wal(url: str, plan: Plan, trials: int, worker: int) -> Iterator[None]:
    """Plain Optuna with our settings of SQLite: WAL, no wait for the disk, a long wait for the others."""
    yield from _plain(RDBStorage(url, engine_options(url), skip_table_creation=True), plan, trials, worker)


def _plain(storage: RDBStorage, plan: Plan, trials: int, worker: int) -> Iterator[None]:
    space = space_of(plan)
    tuning = plan.config.tuning
    study = optuna.load_study(storage=storage, study_name="study", sampler=sampler(tuning, worker, space), pruner=pruner(tuning))
    yield
    for _ in range(trials):
        trial = study.ask(space)
        pruned = False
        for step in range(1, REPORTS + 1):
            value = loss(trial.params, step)
            trial.report(value, step)
            if pruned := trial.should_prune():
                break
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)


def _rate(work: Work, url: str, plan: Plan, trials: int) -> float:
    """Trials per second on a fresh study. Nothing is connected in this process, so that its children may be forked."""
    context = multiprocessing.get_context("fork")
    _run(context.Process(target=_create, args=(work, url, plan)))
    barrier, times = context.Barrier(WORKERS), context.Queue()
    processes = [context.Process(target=_timed, args=(work, url, plan, trials // WORKERS, number, barrier, times)) for number in range(WORKERS)]
    for process in processes:
        process.start()
    begun, ended = zip(*[times.get(timeout=120) for _ in processes], strict=True)
    for process in processes:
        process.join()
    return trials / (max(ended) - min(begun))


def _create(work: Work, url: str, plan: Plan) -> None:
    if work is ours:
        create_study(url, "study", plan)
        return
    optuna.create_study(storage=RDBStorage(canonical(url)), study_name="study")
    if work is plain_wal:
        sqlite3.connect(url.removeprefix("sqlite:///")).execute("PRAGMA journal_mode=WAL").connection.close()


def _timed(work: Work, url: str, plan: Plan, trials: int, worker: int, barrier: Barrier, times: Any) -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    steps = work(url, plan, trials, worker)
    next(steps)
    barrier.wait()
    begun = time.monotonic()
    for _ in steps:
        pass
    times.put((begun, time.monotonic()))


def _run(process: Any) -> None:
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"the study could not be created: exit code {process.exitcode}")


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
