"""Studies small enough to run many of them."""

import multiprocessing.util
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tts.config import Config
from tts.config.load import override
from tts.data.store import FeatureStore
from tts.tuning.database.storage import storage_url
from tts.tuning.study import Plan, Study, create_study

NAME = "voices"


@pytest.fixture(scope="session")
def base(tiny: Config) -> Config:
    """Three knobs; six steps with a report at every second; what is worse at the second report is pruned."""
    small = {
        "tuning.trials": 3, "tuning.steps": 6, "tuning.validation_interval": 2, "tuning.pruner_min_reports": 2, "tuning.pruner_reduction_factor": 2,
    }  # fmt: skip
    return override(tiny, small)


TEMPORARY = tempfile.gettempdir()


@pytest.fixture
def make_study(base: Config, features: Path, tmp_path: Path) -> Callable[..., Study]:
    """Creates, or opens and extends, a study in a folder of its own, and in its database unless a URL is given."""

    def make(folder: str = "study", *, url: str | None = None, **knobs: object) -> Study:
        config = override(base, {f"tuning.{name}": value for name, value in knobs.items()})
        plan = Plan.of(config, FeatureStore.open(features).fingerprint, tmp_path / folder)
        return create_study(storage_url(tmp_path / folder, url), NAME, plan)

    return make


@pytest.fixture
def until() -> Callable[..., object]:
    """Waits for other processes. The limit only ends a test that hangs."""

    def wait(condition: Callable[[], object], seconds: float = 120) -> object:
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, "still waiting"
            time.sleep(0.02)
        return value

    return wait


@pytest.fixture
def machines():
    """A folder for machines' temporary files: a short path, because sockets are among them."""
    with TemporaryDirectory(prefix="tts-", dir=TEMPORARY) as folder:
        yield Path(folder)


@pytest.fixture
def this_machine(machines: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Workers of this process keep what they need for a while below this folder."""
    multiprocessing.util.get_temp_dir()  # the server that trials are forked from outlives the test
    folder = machines / "here"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
