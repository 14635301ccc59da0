"""The runs that are killed: short, and each with something that a resumed run can get wrong."""

import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.chaos.training.lives import Life
from tests.conftest import TINY
from tts.config.load import override, to_json
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.data.store import FeatureStore
from tts.errors import TrainingDivergedError
from tts.progress import Silent

SHORT = {
    "model.reduction_factor": 8,
    "data.frame_budget": 500,
    "training.steps": 14,
    "training.validation_interval": 5,
    "training.checkpoint_interval": 4,
    "training.keep_checkpoints": 2,
}


EXPLODING = {
    "data.frame_budget": 1200,
    "optimiser.learning_rate": 1.0,
    "optimiser.warmup_steps": 30,
    "optimiser.beta1": 0.0,
    "optimiser.beta2": 0.0,
    "recovery.divergence_factor": 1.2,
    "recovery.divergence_steps": 2,
    "recovery.probation_steps": 0,
    "recovery.remedies": [{"learning_rate": 0.01}],
    "training.steps": 30,
    "training.validation_interval": 15,
}
"""Updates of the size of the rate, which rises: the loss falls first and then grows without end, until the remedy."""
HOPELESS = {"recovery.max_skipped_updates": 1, "recovery.probation_steps": 0, "recovery.remedies": [{}, {"learning_rate": 0.5}]}
"""Each skipped update leads to a restart, and the utterance with a NaN comes again."""


@dataclass(frozen=True)
class Kind:
    """What is trained."""

    name: str
    knobs: Mapping[str, Any] = field(default_factory=dict)
    """Beside SHORT."""
    damaged: bool = False
    """Whether one utterance of the features has a NaN, so that updates are skipped."""
    ranks: int = 1
    restarts: int = 0
    """Times that it goes back to a checkpoint."""
    ends: int = 0
    """Its exit code."""
    share: int = 1
    """How often it is chosen beside the others."""


KINDS = (
    Kind("plain", share=3),
    Kind("falling reduction factor", {"model.reduction_factor": 6, "model.initial_reduction_factor": 8, "training.reduction_interval": 5}, share=3),
    Kind("second decoder, recogniser, frame drop", {"model.coarse_reduction_factor": 12, "model.recogniser": 8, "model.frame_drop": 0.2}, share=2),
    Kind("skipped updates", damaged=True, share=2),
    Kind("restart", EXPLODING, restarts=1),
    Kind("restarts to the end of the ladder", HOPELESS, damaged=True, restarts=2, ends=TrainingDivergedError.exit_code, share=2),
    Kind("two ranks", ranks=2),
    Kind("restarts of two ranks", HOPELESS, damaged=True, ranks=2, restarts=2, ends=TrainingDivergedError.exit_code),
)


@dataclass(frozen=True)
class Place:
    """Features and configurations, in a folder."""

    folder: Path

    def build(self) -> None:
        """The corpus, the features and those with a NaN, and each kind's configuration."""
        (self.folder / "logs").mkdir()
        config = override(demo(), TINY | SHORT)
        write_demo_corpus(self.folder / "corpus", language="en", utterances=12, seed=0, progress=Silent())
        prepare(self.folder / "corpus", self.features(damaged=False), config, progress=Silent())
        shutil.copytree(self.features(damaged=False), self.features(damaged=True))
        store = FeatureStore.open(self.features(damaged=True))
        mels = np.load(store.folder / "mels.npy", mmap_mode="r+")
        mels[store._offsets[store.train[0]] + 3, 5] = np.nan
        mels.flush()
        for kind in KINDS:
            self.config(kind).write_text(to_json(override(config, dict(kind.knobs))), encoding="utf-8")

    def features(self, *, damaged: bool) -> Path:
        """The feature store."""
        return self.folder / ("damaged" if damaged else "features")

    def config(self, kind: Kind) -> Path:
        """The file that --config names."""
        return self.folder / f"{kind.name}.json"

    def log(self, run: Path, rank: int) -> Path:
        """What a rank's lives said."""
        return self.folder / "logs" / f"{run.name}-{rank}.log"

    def lives(self, kind: Kind, run: Path) -> list[Life]:
        """Begins the run, or goes on with it: a process for each rank."""
        arguments = ["train", str(self.features(damaged=kind.damaged)), str(run), "--config", str(self.config(kind))]
        if kind.ranks == 1:
            return [Life(arguments, self.log(run, 0), {})]
        meeting = {"WORLD_SIZE": str(kind.ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        return [Life(arguments, self.log(run, rank), {**meeting, "RANK": str(rank)}) for rank in range(kind.ranks)]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
