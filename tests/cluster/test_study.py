"""A study from a laptop: trials in pods that share a database, features and checkpoints in an object store, runs tracked by a server."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.cluster.cluster import Cluster, eventually
from tests.cluster.conftest import Images, Stack
from tests.cluster.studies import Laptop
from tts.config.load import override, read_config
from tts.data.store import FeatureStore
from tts.progress import Silent
from tts.training.loop import train
from tts.training.preemption import StopFlag

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def laptop(cluster: Cluster, stack: Stack, images: Images, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(cluster, stack, images, features, tmp_path_factory.mktemp("laptop"))
    yield made
    made.close()


def test_a_study_whose_trials_run_in_pods(laptop: Laptop, tmp_path: Path) -> None:
    config = laptop.config("voices", trials=4, steps=24, validation_interval=6)
    tuning = laptop.tune(config, "voices")
    pods = eventually(lambda: laptop.jobs("voices") and laptop.pods("voices"), "pods run", 180)
    jobs = laptop.jobs("voices")
    events = laptop.cluster.get("events", namespace=laptop.namespace)

    assert tuning.ended(240) == 0, tuning.said()

    assert laptop.judge("voices", config, budget=4) == []
    assert laptop.jobs("voices") == [], "the Job goes with the study"
    assert {trial.state for trial in laptop.trials("voices")} == {TrialState.COMPLETE}
    for secret in laptop.secrets:
        assert secret not in json.dumps([jobs, pods, events])
        assert secret not in tuning.said()
    assert len(jobs) == 1
    (worker,) = jobs[0]["spec"]["template"]["spec"]["containers"]
    assert worker["args"][:4] == ["worker", laptop.features, "--study", "voices"]
    kept = laptop.store.objects(f"{laptop.folder.name}/runs/voices/trials/")
    assert {key.split("/")[4] for key in kept if "/checkpoints/" in key} == {"0", "1", "2", "3"}, "each trial's checkpoint is in the object store"

    folder = laptop.study("voices")
    assert {file.name for file in folder.iterdir()} >= {"best.yaml", "trials.csv", "study.json", "study.html"}
    assert not (folder / "trials").exists(), "trials leave nothing on the laptop"
    best = override(
        read_config(folder / "best.yaml", config), {"training.steps": 2, "training.validation_interval": 2, "training.checkpoint_interval": 2}
    )
    with closing(train(FeatureStore.open(laptop.local_features), best, tmp_path / "voice", progress=Silent(), stop=StopFlag())) as records:
        assert [record.step for record in records][-1] == 2


def test_a_pod_for_each_trial(laptop: Laptop) -> None:
    config = laptop.config("one each", trials=3, trials_per_pod=1, steps=12, validation_interval=4)
    tuning = laptop.tune(config, "one each")
    (job,) = eventually(lambda: laptop.jobs("one each"), "the Job is there", 180)

    assert tuning.ended(240) == 0, tuning.said()

    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (3, 2)
    assert laptop.judge("one each", config, budget=3) == []
    hosts = {trial.user_attrs["worker"].rpartition("-")[0] for trial in laptop.trials("one each")}
    assert {host.rpartition("-")[0] for host in hosts} == {f"{job['metadata']['name']}-{index}" for index in range(3)}, "no pod had two trials"


def test_a_study_whose_workers_are_killed_for_their_memory_goes_on_with_more_of_it(laptop: Laptop) -> None:
    tight = {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "48Mi"}}
    config = laptop.config("hungry", trials=2, steps=12, validation_interval=4, pod_retries=0, resources=tight)
    tuning = laptop.tune(config, "hungry")

    assert tuning.ended(120) == 75, tuning.said()

    told = "was killed for its memory (OOMKilled, limit 48Mi); give it more in the pods' template"
    assert f"study 'hungry' has no worker left after 0 finished trials (worker 0 {told}" in tuning.said()
    assert told in laptop.tts("study", "show", "--study", "hungry", "--json")

    again = laptop.tune(laptop.config("hungry", trials=2, steps=12, validation_interval=4), "hungry")
    assert again.ended(180) == 0, again.said()
    assert laptop.judge("hungry", config, budget=2) == []
    assert "OOMKilled, limit 48Mi" in (laptop.study("hungry") / "study.html").read_text(encoding="utf-8")
