"""Fixtures that every room uses: a tiny configuration, a demo corpus of seconds, and its feature store."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from tts.config import Config
from tts.config.load import override
from tts.config.presets import demo
from tts.progress import Silent

if TYPE_CHECKING:
    from tests.mlflow_server import MlflowServer
    from tests.postgresql import PostgresServer
    from tests.s3_server import Bucket

TINY = {
    "model.symbol_embedding": 16,
    "model.encoder_convolutions": 2,
    "model.encoder_lstm": 16,
    "model.attention": 8,
    "model.location_filters": 4,
    "model.location_kernel": 7,
    "model.attention_lstm": 24,
    "model.prenet": 12,
    "model.decoder_lstm": 24,
    "model.reduction_factor": 5,
    "model.postnet_channels": 16,
    "model.postnet_convolutions": 3,
    "data.frame_budget": 1200,
    "data.held_out_max": 3,
    "data.held_out_share": 0.2,
    "training.steps": 6,
    "training.validation_interval": 3,
    "training.checkpoint_interval": 3,
    "training.log_interval": 1,
    "training.threads": 1,
    "tuning.knobs": ["optimiser.learning_rate", "optimiser.warmup_steps", "model.prenet_dropout"],
    "tuning.trials": 3,
    "tuning.steps": 4,
    "tuning.validation_interval": 2,
    "tuning.workers": 1,
    "evaluation.sentences": 2,
    "evaluation.listed_sentences": 2,
    "synthesis.max_frames_per_symbol": 4,
    "synthesis.griffin_lim_iterations": 4,
    "tracking.backend": "none",
}

# The same examples in every run, and none fails because the machine is busy.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would each process that the suite starts in one to press it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors gain nothing from threads, and results do not depend on the machine's cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator["PostgresServer"]:
    """A real PostgreSQL over TCP, shared by all tests: whoever stops it starts it again. Without its wheel they are skipped, or with CI=true fail."""
    if not os.environ.get("CI") and find_spec("pgserver") is None:
        pytest.skip("the wheel pgserver, PostgreSQL's binaries, is not installed")
    from tests.postgresql import postgres_server

    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["MlflowServer"]:
    """A real MLflow server, shared by all tests: whoever stops it starts it again."""
    from tests.mlflow_server import mlflow_server

    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of a real S3 server, shared by all tests."""
    from tests.s3_server import s3_server

    with s3_server() as uri:
        yield uri


@pytest.fixture
def bucket(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> "Bucket":
    """A new, empty bucket on it. The environment leads to it, and to a cache of its own."""
    from tests.s3_server import Bucket

    for name in [name for name in os.environ if name.startswith(("AWS_", "TTS_S3_"))]:
        monkeypatch.delenv(name)
    for name, value in (
        ("AWS_ENDPOINT_URL", s3_endpoint),
        ("AWS_ACCESS_KEY_ID", "key-of-the-tests"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-the-tests"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_MAX_ATTEMPTS", "2"),
        ("TTS_CACHE", str(tmp_path.with_name(f"{tmp_path.name}-cache"))),
    ):
        monkeypatch.setenv(name, value)
    return Bucket.new(s3_endpoint)


@pytest.fixture
def postgres_url(postgres: "PostgresServer") -> str:
    """A new, empty database on it."""
    return postgres.database()


@pytest.fixture(scope="session")
def tiny() -> Config:
    """The demo preset at sizes where a step takes milliseconds."""
    return override(demo(), TINY)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty English utterances in LJSpeech layout. Read only: a test that changes clips copies the folder."""
    from tts.data.demo_corpus import write_demo_corpus

    folder = tmp_path_factory.mktemp("corpus") / "english"
    write_demo_corpus(folder, language="en", utterances=20, seed=0, progress=Silent())
    return folder


@pytest.fixture(scope="session")
def features(corpus: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature store of `corpus` under `tiny`. Read only."""
    from tts.data.prepare import prepare

    folder = tmp_path_factory.mktemp("features") / "store"
    prepare(corpus, folder, tiny, progress=Silent())
    return folder


@pytest.fixture(scope="session")
def voices_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve English utterances of two speakers, named by a manifest. Read only."""
    from tts.data.demo_corpus import write_demo_corpus

    folder = tmp_path_factory.mktemp("corpus") / "voices"
    write_demo_corpus(folder, language="en", utterances=12, seed=0, speakers=2, progress=Silent())
    return folder


@pytest.fixture(scope="session")
def voices_features(voices_corpus: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The feature store of `voices_corpus` under `tiny`. Read only."""
    from tts.data.prepare import prepare

    folder = tmp_path_factory.mktemp("features") / "voices"
    prepare(voices_corpus, folder, tiny, progress=Silent())
    return folder


@pytest.fixture(scope="session")
def trained(features: Path, tiny: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `tiny` on `features`. Read only."""
    from tts.data.store import FeatureStore
    from tts.training.loop import train
    from tts.training.preemption import StopFlag

    folder = tmp_path_factory.mktemp("runs") / "voice"
    for _ in train(FeatureStore.open(features), tiny, folder, progress=Silent(), stop=StopFlag()):
        pass
    return folder


@pytest.fixture
def tts(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs the program in this process: (exit code, standard output, the line of the error)."""

    from tts.cli import main

    def call(*argv: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        said = [line for line in captured.err.splitlines() if line.startswith("tts: ")]
        assert len(said) == (0 if code == 0 else 1), captured.err
        return code, captured.out, said[0] if said else ""

    return call


@pytest.fixture(scope="session")
def browser() -> str:
    """Chromium's program. Where there is none, its tests are skipped, or with CI=true fail."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("no chromium on PATH: CI must see pages in a browser")
    if found is None:
        pytest.skip("no chromium on PATH: install it to see pages in a browser")
    return found
