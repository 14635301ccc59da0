"""The whole of it: services, the performance, what is delivered late, and the judgement."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.chaos.judgement import Fault, judge_replays, judge_runs, judge_tracking, judge_trials, trials_of
from tests.chaos.performance import Outcome, perform
from tests.chaos.plan import Plan, Stage
from tests.chaos.services import Outages, Restarts
from tests.chaos.verdict import Verdict
from tests.mlflow_server import mlflow_server
from tests.postgresql import PASSWORD, USER, postgres_server
from tts.progress import Progress

FAULTS = (
    "study_trials_lost", "study_trials_run_twice", "study_metrics_missing", "study_metrics_repeated", "study_tracking_runs_wrong",
    "study_reports_missing", "study_budget_error", "study_replays_different", "study_trials_unseen", "study_surprises",
)  # fmt: skip
"""Figures that count what must not be."""


def show(plan: Plan, folder: Path, progress: Progress) -> Verdict:
    """Plays in an empty folder and judges. Nobody is left afterwards, however it ends."""
    with ExitStack() as stack:
        database, storage, restarts = _database(plan, folder, stack)
        outages, tracking = None, ""
        if plan.outages:
            (folder / "mlflow").mkdir()
            server = stack.enter_context(mlflow_server(folder / "mlflow"))
            outages, tracking = Outages(server, plan.seed), server.uri
        stage = Stage(folder, plan, plan.config(tracking), storage, _environment(plan))
        stage.build()
        outcome = perform(stage, database=database, outages=outages, restarts=restarts, progress=progress)
        faults = list(_judge(stage, database, outcome, tracking))
        finished = sum(trial.state.is_finished() for trial in trials_of(database))
    return _verdict(plan, outcome, faults, finished)


def _database(plan: Plan, folder: Path, stack: ExitStack) -> tuple[str, str, Restarts | None]:
    """URLs for ourselves and for those on stage, and who restarts it."""
    if not plan.restarts:
        url = f"sqlite:///{folder / 'study.db'}"
        return url, url, None
    server = stack.enter_context(postgres_server())
    url = server.database().replace("postgresql://", "postgresql+psycopg://", 1)
    return url, f"postgresql://{USER}@127.0.0.1:{server.port}/{url.rpartition('/')[2]}", Restarts(server, plan.restarts, plan.seed)


def _environment(plan: Plan) -> dict[str, str]:
    password = {"PGPASSWORD": PASSWORD} if plan.restarts else {}
    return {**os.environ, **password, "OMP_NUM_THREADS": "1"}


def _judge(stage: Stage, database: str, outcome: Outcome, tracking: str) -> Iterator[Fault]:
    trials = trials_of(database)
    yield from judge_trials(trials, stage.plan.trials)
    yield from judge_runs(stage, trials, outcome.seen)
    yield from judge_replays(stage, trials, stage.plan.replayed)
    for trial, what in outcome.doubles.items():
        yield Fault("study_trials_run_twice", f"trial {trial} was run by two at once: {what}")
    for what, times in outcome.surprises.items():
        yield Fault("study_surprises", f"{what}, {times} times")
    if outcome.processes_left:
        yield Fault("study_surprises", f"{outcome.processes_left} processes were left behind")
    if tracking:
        flushed = subprocess.run(stage.command("tracking flush"), env=stage.environment, check=False, stdout=sys.stderr)
        if flushed.returncode:
            yield Fault("study_surprises", f"tts tracking flush ended with {flushed.returncode}")
        yield from judge_tracking(stage, trials, tracking)


def _verdict(plan: Plan, outcome: Outcome, faults: list[Fault], finished: int) -> Verdict:
    counted = Counter(fault.figure for fault in faults)
    figures: dict[str, float] = {
        "study_kills": outcome.kills.total(),
        "study_trials_finished": finished,
        **{name: counted[name] for name in FAULTS},
        **{f"study_kills_{role}": times for role, times in sorted(outcome.kills.items())},
        "postgresql_restarts": outcome.postgresql_restarts,
        "mlflow_down_share": round(outcome.mlflow_down_share, 3),
        "study_seconds": round(outcome.seconds, 1),
    }
    wrong = [fault.text for fault in faults]
    for name, least in (("study_kills", plan.kills), ("study_trials_finished", plan.trials), ("postgresql_restarts", len(plan.restarts))):
        if figures[name] != least:
            wrong.append(f"{name} is {figures[name]}, not {least}")
    if plan.outages and outcome.mlflow_down_share < 0.3:
        wrong.append(f"MLflow was down for {outcome.mlflow_down_share:.0%} of the time only")
    return Verdict(figures, tuple(wrong))
