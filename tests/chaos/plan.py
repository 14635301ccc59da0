"""What happens to a study, and what its trials are."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import TINY
from tts.config import Config
from tts.config.load import override, to_json
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.progress import Silent

STUDY = "chaos"
"""The study's name in the database."""


@dataclass(frozen=True)
class Plan:
    """One performance."""

    trials: int
    kills: int
    """SIGKILLs: spread over the study, each at a random moment."""
    workers: int
    """One of them is `tts tune`'s own; the others are `tts worker`."""
    restarts: tuple[str, ...]
    """pg_ctl's modes, one for each restart of PostgreSQL; `immediate` is a crash. Without any the study is in SQLite."""
    outages: bool
    """Whether an MLflow server records the trials, and is down for a third of the time."""
    replayed: int
    """Trials that are trained once more, undisturbed, and must come out the same."""
    seconds: float
    """The limit."""
    seed: int = 0

    def config(self, tracking: str) -> Config:
        """A real network on a real corpus, tiny. A kill is not the trial's fault: retries are as good as without limit."""
        return override(
            demo(),
            TINY
            | {
                "tuning.trials": self.trials,
                "tuning.steps": 24,
                "tuning.validation_interval": 4,
                "tuning.workers": 1,
                "tuning.pruner": "hyperband",
                "tuning.pruner_min_reports": 2,
                "tuning.max_retries": 1000,
                "tuning.heartbeat_seconds": 2.0,
                "tuning.stale_seconds": 12.0,
                "tracking.backend": "mlflow" if tracking else "none",
                "tracking.uri": tracking,
            },
        )


FULL = Plan(trials=60, kills=100, workers=4, restarts=("fast", "immediate", "immediate"), outages=True, replayed=4, seconds=20 * 60)
SHORT = Plan(trials=3, kills=2, workers=2, restarts=(), outages=False, replayed=1, seconds=200)


@dataclass(frozen=True)
class Stage:
    """Where it takes place."""

    folder: Path
    plan: Plan
    config: Config
    storage: str
    """The database's URL, without a password: that is in the environment, as on a cluster."""
    environment: dict[str, str]

    @property
    def features(self) -> Path:
        """What trials train on."""
        return self.folder / "features"

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / "study"

    def build(self) -> None:
        """The corpus, the features and the configuration."""
        write_demo_corpus(self.folder / "corpus", language="en", utterances=20, seed=0, progress=Silent())
        prepare(self.folder / "corpus", self.features, self.config, progress=Silent())
        (self.folder / "chaos.json").write_text(to_json(self.config), encoding="utf-8")

    def command(self, name: str) -> list[str]:
        """As typed at a terminal."""
        where = ["--storage", self.storage, "--study", STUDY]
        arguments: dict[str, list[Any]] = {
            "tune": [self.features, self.study, "--config", self.folder / "chaos.json", *where],
            "worker": [self.features, *where],
            "tracking flush": [self.study],
        }
        return [sys.executable, "-m", "tts.cli", *name.split(), *map(str, arguments[name])]
