"""What is in MLflow of a run, asked of MLflow itself."""

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import Any

import pytest
from mlflow import MlflowClient


@dataclass(frozen=True)
class Seen:
    """A store from outside."""

    client: MlflowClient
    experiment: str

    def all(self) -> list[Any]:
        """Every run."""
        return list(self.client.search_runs([self.client.get_experiment_by_name(self.experiment).experiment_id]))

    def run(self, key: str) -> Any:
        """The one run with our key."""
        (found,) = [run for run in self.all() if run.data.tags["tts.key"] == key]
        return found

    def history(self, key: str, metric: str) -> list[tuple[int, float]]:
        """Steps and values in the order in which MLflow shows them."""
        return [(entry.step, entry.value) for entry in self.client.get_metric_history(self.run(key).info.run_id, metric)]


@pytest.fixture
def nfs4(monkeypatch):
    """NFSv4's rule for flock, kept before the system's own call: who may not read gets no shared lock, who may not write no exclusive one."""
    flock = fcntl.flock
    given = []

    def strict(file, operation):
        mode = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        refused = {fcntl.LOCK_SH: os.O_WRONLY, fcntl.LOCK_EX: os.O_RDONLY}
        if refused.get(operation & ~fcntl.LOCK_NB) == mode:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)
        given.append(operation & ~fcntl.LOCK_NB)

    monkeypatch.setattr(fcntl, "flock", strict)
    return given


@pytest.fixture(scope="session")
def look():
    """Opens a store for looking."""

    def open_store(uri: str, experiment: str) -> Seen:
        return Seen(MlflowClient(uri, uri), experiment)

    return open_store
