"""Where faults are injected: a corpus, its features, and a run that nothing befell; and what can be read of a command that something befell."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.chaos.training.lives import Life
from tests.chaos.training.sameness import differences
from tests.conftest import TINY
from tts.config import Config
from tts.config.load import override, to_json
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.store import FeatureStore
from tts.progress import Silent

KNOBS = TINY | {
    "model.reduction_factor": 8,
    "data.frame_budget": 500,
    "training.steps": 12,
    "training.validation_interval": 4,
    "training.checkpoint_interval": 4,
    "training.keep_checkpoints": 3,
}

Hook = Callable[[], None]
"""Called in the process before the program."""


@dataclass
class Scene:
    """One fault: its folder, its seed, and what was seen of it."""

    stage: "Stage"
    folder: Path
    seed: int
    run: Path
    """The folder of the training."""
    codes: list[int | None] = field(default_factory=list)
    """How the commands ended, one after the other."""
    exact: bool | None = None
    """Whether the run came out as the one that nothing befell; None where that was not to be."""

    @property
    def log(self) -> Path:
        """What the commands said."""
        return self.folder / "log.txt"

    def features(self) -> FeatureStore:
        """A copy of the features, to be spoiled."""
        return FeatureStore.open(shutil.copytree(self.stage.features, self.folder / "features"))

    def corpus(self) -> Path:
        """A copy of the corpus, to be spoiled."""
        return shutil.copytree(self.stage.corpus, self.folder / "corpus")

    def train(self, features: Path | None = None, *, run: Path | None = None, hook: Hook | None = None, **knobs: object) -> int | None:
        """`tts train`; knobs by their names with a double underscore for the dot."""
        return self.command("train", features or self.stage.features, run or self.run, hook=hook, **knobs)

    def command(self, *words: object, hook: Hook | None = None, **knobs: object) -> int | None:
        """A command with the configuration of the stage and these knobs; how it ended."""
        given = {name.replace("__", "."): value for name, value in knobs.items()}
        config = self.folder / f"config-{len(self.codes)}.json"
        config.write_text(to_json(override(self.stage.config, given)), encoding="utf-8")
        return self.tts(*words, "--config", config, hook=hook)

    def tts(self, *words: object, hook: Hook | None = None) -> int | None:
        """A command as it is; how it ended."""
        with Life(list(map(str, words)), self.log, {}, hook) as life:
            self.codes.append(life.end())
        return self.codes[-1]

    def compare(self) -> None:
        """Sets `exact`; the log tells what differs."""
        found = differences(self.run, self.stage.undisturbed)
        with self.log.open("a", encoding="utf-8") as log:
            log.writelines(f"differs: {text}\n" for text in found)
        self.exact = not found

    def names(self) -> set[str]:
        """What the product says of the fault, by the names that its records give; of a corpus what was rejected, of a run all the rest."""
        return set(_names(self.folder))

    def says(self, words: str) -> bool:
        """Whether a line of the log holds these words; * stands for any others."""
        pattern = ".*".join(map(re.escape, words.split("*")))
        return re.search(pattern, self.log.read_text(encoding="utf-8")) is not None


@dataclass(frozen=True)
class Stage:
    """What all faults begin from. Read only."""

    folder: Path

    @cached_property
    def config(self) -> Config:
        """A real network, tiny."""
        return override(demo(), KNOBS)

    @property
    def corpus(self) -> Path:
        """In LJSpeech layout."""
        return self.folder / "corpus"

    @property
    def features(self) -> Path:
        """Its feature store."""
        return self.folder / "features"

    @property
    def undisturbed(self) -> Path:
        """A run that nothing befell."""
        return self.folder / "undisturbed" / "run"

    def build(self) -> None:
        """Raises AssertionError where a command fails although nothing was injected."""
        write_demo_corpus(self.corpus, language="en", utterances=12, seed=0, progress=Silent())
        scene = self.scene("undisturbed", 0)
        codes = [scene.command("prepare", self.corpus, self.features), scene.train()]
        if codes != [0, 0] or (found := scene.names()):
            raise AssertionError(f"nothing was injected, but the commands ended with {codes} and said {found}; see {scene.log}")

    def scene(self, name: str, seed: int) -> Scene:
        """A fault's, in a new folder."""
        folder = self.folder / name
        folder.mkdir()
        return Scene(self, folder, seed, folder / "run")


def _names(folder: Path) -> Iterator[str]:
    """Of everything below a scene's folder."""
    for path in folder.rglob("quality.json"):
        yield from (f"rejected: {clip['reason']}" for clip in _json(path)["rejected"])
    for path in folder.rglob("anomalies/*.json"):
        anomaly = _json(path)
        yield f"anomaly: {anomaly['kind']} {anomaly['name']}"
    for path in folder.rglob("restart.json"):
        yield f"restart: {_json(path)['trigger']}"


def findings(run: Path) -> set[str]:
    """Codes of what `tts diagnose` found in a run."""
    return {finding["code"] for finding in _json(run / "diagnostics" / "diagnostics.json")["findings"]}


def _json(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
