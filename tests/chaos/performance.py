"""The performance: a study, its workers, kills at random moments, services that come and go. What became of it is for judgement.py."""

import math
import random
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field

import psutil
import sqlalchemy

from tests.chaos.cast import Cast
from tests.chaos.plan import Stage
from tests.chaos.services import Outages, Restarts
from tests.chaos.witness import Witness
from tts.progress import Progress, Task

ROLES = {"worker": 0.6, "trial": 0.25, "tune": 0.1, "server": 0.05}
"""Whom a kill hits, by chance; the worker where the one chosen is not there."""
PAUSE_SECONDS, LEAST_SECONDS = 5.0, 0.5
"""Between kills on average, where as many of the kills are done as of the trials; and at least."""
HURRY = 10.0
"""The pause doubles with each tenth that the kills are ahead, and halves with each that they are behind: whatever the machine, the trials get
done and all kills hit."""
LOOK_SECONDS = 0.1
COUNT_SECONDS = 0.5
FINISHED = ("COMPLETE", "PRUNED", "FAIL")


@dataclass
class Outcome:
    """What was seen while it lasted."""

    kills: Counter[str] = field(default_factory=Counter)
    """By role."""
    seconds: float = 0.0
    surprises: Counter[str] = field(default_factory=Counter)
    processes_left: int = 0
    postgresql_restarts: int = 0
    mlflow_down_share: float = 0.0
    doubles: dict[str, str] = field(default_factory=dict)
    """Trials that were run by two at once."""
    seen: dict[str, set[int]] = field(default_factory=dict)
    """The processes that trained each trial."""


def perform(stage: Stage, *, database: str, outages: Outages | None, restarts: Restarts | None, progress: Progress) -> Outcome:
    """Runs until everybody has found the study's budget spent, or for the plan's limit. `database` is the URL that we look at it with."""
    plan, outcome = stage.plan, Outcome()
    begun = time.monotonic()
    cast = Cast(stage)
    with ExitStack() as stack:
        witness = stack.enter_context(Witness(stage.study / "trials"))
        if restarts:
            stack.callback(restarts.end)
        if outages:
            stack.callback(outages.end)
        stack.enter_context(cast)
        audience = _Audience(database)
        fate = _Fate(cast, outcome, plan.kills, plan.seed)
        task = stack.enter_context(progress.task("Trials", total=plan.trials))
        while not cast.done:
            if time.monotonic() - begun > plan.seconds:
                outcome.surprises[f"not finished after {plan.seconds:.0f} s"] += 1
                break
            cast.look()
            audience.look(task, outcome, outages, restarts)
            share = audience.finished / plan.trials
            if cast.created:
                fate.strike(share)
                if outages:
                    outages.begin()
                if restarts:
                    restarts.at(share)
            time.sleep(LOOK_SECONDS)
        outcome.seconds = time.monotonic() - begun
    outcome.surprises += cast.surprises
    outcome.processes_left = cast.left
    outcome.doubles, outcome.seen = witness.doubles, dict(witness.seen)
    outcome.postgresql_restarts = restarts.done if restarts else 0
    outcome.mlflow_down_share = outages.share if outages else 0.0
    return outcome


class _Fate:
    """Kills, at random moments and whoever is there. The seed makes choices repeatable, the moments depend on the machine."""

    def __init__(self, cast: Cast, outcome: Outcome, kills: int, seed: int) -> None:
        self._cast, self._outcome, self._kills = cast, outcome, kills
        self._random = random.Random(seed)
        self._looked = time.monotonic()

    def strike(self, share: float) -> None:
        """Perhaps; `share` of the trials are finished. Whoever looks often sees a Poisson process, whose rate follows the trials."""
        now, before = time.monotonic(), self._looked
        self._looked = now
        done = self._outcome.kills.total()
        pause = max(LEAST_SECONDS, PAUSE_SECONDS * 2 ** (HURRY * (done / self._kills - share)))
        if done >= self._kills or self._random.random() > 1 - math.exp((before - now) / pause):
            return
        victims = self._cast.victims()
        (role,) = self._random.choices(list(ROLES), list(ROLES.values()))
        role = role if victims[role] else "worker"
        if victims[role] and _killed(self._random.choice(victims[role])):
            self._outcome.kills[role] += 1


def _killed(victim: psutil.Process) -> bool:
    """Whether it lived until then."""
    try:
        alive = victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return alive


class _Audience:
    """Counts the study's trials in the database, when it is there, and shows them."""

    def __init__(self, database: str) -> None:
        self._engine = sqlalchemy.create_engine(database, poolclass=sqlalchemy.pool.NullPool)
        self._due = 0.0
        self.states: Counter[str] = Counter()

    @property
    def finished(self) -> int:
        """Trials, when it was last there."""
        return sum(self.states[state] for state in FINISHED)

    def look(self, task: Task, outcome: Outcome, outages: Outages | None, restarts: Restarts | None) -> None:
        """Now and then."""
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + COUNT_SECONDS
        before = self.finished
        try:
            with self._engine.connect() as connection:
                rows = connection.execute(sqlalchemy.text("SELECT state, count(*) FROM trials GROUP BY state"))
                self.states = Counter({state: number for state, number in rows})  # noqa: C416  # rows are not pairs to Counter
        except sqlalchemy.exc.DBAPIError:
            pass  # not made yet, or away
        figures: dict[str, float | str] = {"kills": str(outcome.kills.total())}
        for name, service in (("postgresql", restarts), ("mlflow", outages)):
            if service:
                figures[name] = "up" if service.up else "down"
        task.advance(self.finished - before, **figures)
