"""What is in MLflow of a run, asked of MLflow itself."""

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


@pytest.fixture(scope="session")
def look():
    """Opens a store for looking."""

    def open_store(uri: str, experiment: str) -> Seen:
        return Seen(MlflowClient(uri, uri), experiment)

    return open_store
