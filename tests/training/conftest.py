"""What the training tests share: an opened store, and a learner with a batch."""

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tts.config import Config
from tts.data.batch import Batch
from tts.data.batches import TrainingBatches
from tts.data.store import FeatureStore
from tts.training.precision import choose_precision
from tts.training.step import Learner, new_learner

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def store(features: Path) -> FeatureStore:
    return FeatureStore.open(features)


@pytest.fixture(scope="session")
def damaged_store(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The same store, but the mel of its first utterance to train on has a NaN."""
    folder = tmp_path_factory.mktemp("damaged") / "store"
    shutil.copytree(store.folder, folder)
    mels = np.load(folder / "mels.npy", mmap_mode="r+")
    mels[store._offsets[store.train[0]] + 3, 5] = np.nan
    mels.flush()
    return FeatureStore.open(folder)


@pytest.fixture
def new_run(store: FeatureStore) -> Callable[..., tuple[Learner, Batch]]:
    """Makes a fresh learner and a batch of some utterances under a configuration."""

    def make(config: Config, device: torch.device = CPU) -> tuple[Learner, Batch]:
        precision = choose_precision(config.training.precision, device)
        learner = new_learner(config, symbols=len(store.symbol_table), mels=config.audio.mels, precision=precision)
        batches = TrainingBatches(store, store.train, config.data, config.model.reduction_factor, config.training.seed)
        return learner, next(batch for batch in map(batches.batch, range(100)) if len(batch.ids) > 2)

    return make


@pytest.fixture
def file_size_limit() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """A limit on the size of files that this process writes: the system then refuses in the middle of a write, as it does on a full disk."""

    @contextlib.contextmanager
    def limit(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


@pytest.fixture
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may not write to; root, who may write anywhere, becomes nobody for the while."""
    nobody = 65534
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "locked"
        folder.mkdir()
        Path(name).chmod(0o755)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(nobody)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
