"""Everything that befalls a cluster, while a study runs on it: nothing is lost, nothing is run by two at once, and the budget is exact."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from optuna.trial import FrozenTrial, TrialState

from tests.cluster.cluster import ApiServer, Cluster, Kubelet, eventually, pod
from tests.cluster.conftest import Images, Stack
from tests.cluster.studies import Laptop, PodWitness
from tts.config.load import to_json

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NAME = "befallen"
Pod = dict[str, Any]


@pytest.fixture(scope="module")
def laptop(cluster: Cluster, stack: Stack, images: Images, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    made = Laptop(cluster, stack, images, features, tmp_path_factory.mktemp("befallen"))
    yield made
    made.close()


@pytest.fixture
def witness() -> Iterator[PodWitness | None]:
    """None where we are not root, who alone sees which files the processes in pods have open; what the study itself notes is judged anyway."""
    if os.geteuid() != 0:
        yield None
        return
    with PodWitness() as made:
        yield made


class Fate:
    """Strikes workers in the middle of a trial."""

    def __init__(self, laptop: Laptop, name: str) -> None:
        self._laptop, self._name = laptop, name

    def both_at_work(self) -> list[tuple[Pod, FrozenTrial]]:
        """Both workers' pods, each in the middle of a trial."""
        return eventually(self._both, "both workers are in the middle of a trial", 120)

    def _both(self) -> list[tuple[Pod, FrozenTrial]]:
        found = self._laptop.at_work(self._name)
        return found if len(found) == 2 else []

    def reports(self) -> int:
        """Validations that the study knows of."""
        return sum(len(trial.intermediate_values) for trial in self._laptop.trials(self._name))

    def goes_on(self, more: int = 6) -> None:
        """Waits until the study knows of so many more."""
        before = self.reports()
        eventually(lambda: self.reports() >= before + more, f"{more} more validations after {before}", 120)

    def evict(self, found: Pod) -> None:
        """As when a node is drained."""
        metadata = client.V1ObjectMeta(name=found["metadata"]["name"], namespace=self._laptop.namespace)
        body = client.V1Eviction(metadata=metadata)
        self._laptop.cluster.core.create_namespaced_pod_eviction(metadata.name, metadata.namespace, body)

    def delete(self, name: str, *how: str) -> None:
        """As a person does."""
        self._laptop.cluster.kubectl("delete", "pod", name, "--namespace", self._laptop.namespace, "--wait=false", *how)


def end_soon(laptop: Laptop, name: str) -> int:
    """Leaves the study as many trials as it has, and a dozen, for it goes on while it is told; how many those are."""
    budget = len(laptop.trials(name)) + 12
    laptop.tts("study", "extend", "--study", name, "--trials", budget)
    assert len(laptop.trials(name)) <= budget, "told too late"
    return budget


def interrupted(trial: FrozenTrial) -> list[str]:
    return trial.user_attrs.get("interruptions", [])


def test_a_study_goes_on_whatever_befalls_it(laptop: Laptop, witness: PodWitness | None, api_server: ApiServer, kubelet: Kubelet) -> None:
    fate = Fate(laptop, NAME)
    config = laptop.config(NAME, trials=1000, steps=40, validation_interval=5, launcher_stale_seconds=15.0)
    tuning = laptop.tune(config, NAME)

    (evicted, first), (killed, second) = fate.both_at_work()
    fate.evict(evicted)
    fate.delete(killed["metadata"]["name"], "--grace-period=0", "--force")
    eventually(lambda: {evicted["metadata"]["uid"], killed["metadata"]["uid"]}.isdisjoint(uids(fate.both_at_work())), "two others are at work", 120)

    (deleted, third), _ = fate.both_at_work()
    fate.delete(deleted["metadata"]["name"])
    fate.delete("tts-postgresql-0")
    eventually(lambda: "answers again after" in tuning.said(), "the database is back", 120)
    fate.goes_on()

    api_server.stop()
    eventually(lambda: "has told nothing for" in tuning.said(), "the launcher says that the API is away", 120)
    fate.goes_on()
    api_server.start()
    assert tuning.said().count(f"study {NAME}: the Kubernetes API at") < 6, "it is told when it begins, not each second"

    fate.both_at_work()
    kubelet.down()
    eventually(lambda: "does not answer" in tuning.said(), "the launcher says that the node is away", 90)
    kubelet.up()

    working = uids(fate.both_at_work())
    tuning.kill()
    eventually(lambda: working.isdisjoint(pod["metadata"]["uid"] for pod in laptop.pods(NAME)), "the workers of a launcher that is gone stop", 90)
    states = {trial.state for trial in laptop.trials(NAME)}
    left = [trial for trial in laptop.trials(NAME) if trial.state == TrialState.WAITING]  # none, where both had just finished one
    assert TrialState.RUNNING not in states
    assert all("gave no sign of life" in interrupted(trial)[-1] and trial.user_attrs["run"] for trial in left), left
    tuning = laptop.tune(config, NAME)
    # Its pods wait after their failures, or have just begun again.
    eventually(lambda: any(words in tuning.said() for words in ("it is made anew", "is there and taken over")), "the next one has a Job", 180)

    budget = end_soon(laptop, NAME)
    assert tuning.ended(400) == 0, tuning.said()
    assert laptop.judge(NAME, config, budget, witness) == []
    assert laptop.jobs(NAME) == []
    befallen = {first.number, second.number, third.number, *(trial.number for trial in left)}
    assert all(interrupted(trial) for trial in laptop.trials(NAME) if trial.number in befallen)
    page = (laptop.study(NAME) / "study.html").read_text(encoding="utf-8")
    assert "was evicted, as when its node is drained" in page
    assert f"was deleted, and ended with exit code 75 (pod {deleted['metadata']['name']})" in page


def uids(found: list[tuple[Pod, FrozenTrial]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod, _ in found}


class PodTuning:
    """`tts tune` in pods of the cluster, with the account that the manifests give it."""

    def __init__(self, laptop: Laptop, name: str, config: Any) -> None:
        self._laptop, self.name, self.study = laptop, name, f"{laptop.place}/{name}"
        template = Path(config.cluster.template).read_text(encoding="utf-8")
        told = config.model_copy(update={"cluster": config.cluster.model_copy(update={"namespace": "", "template": "/etc/tts/pod.yaml"})})
        files = {"config.json": to_json(told), "pod.yaml": template}
        laptop.cluster.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-files"}, "data": files}, namespace=laptop.namespace
        )
        self._env = json.loads(json.dumps(laptop.worker_env()))

    def start(self, number: int) -> str:
        """A pod that launches the study; its name."""
        command = ["tts", "tune", self._laptop.features, self.study, "--study", self.name, "--config", "/etc/tts/config.json"]
        made = pod(
            f"{self.name}-launcher-{number}", self._laptop.image, command, env=self._env, resources={"requests": {"cpu": "50m", "memory": "256Mi"}}
        )
        made["metadata"]["labels"] = {"app.kubernetes.io/component": "launcher"}
        made["spec"] |= {"serviceAccountName": "tts-launcher", "automountServiceAccountToken": True}
        made["spec"]["volumes"].append({"name": "files", "configMap": {"name": f"{self.name}-files"}})
        made["spec"]["containers"][0]["volumeMounts"].append({"name": "files", "mountPath": "/etc/tts"})
        self._laptop.cluster.apply(made, namespace=self._laptop.namespace)
        return str(made["metadata"]["name"])


def test_a_launcher_that_is_evicted_and_started_again_takes_its_job_over(laptop: Laptop, witness: PodWitness | None) -> None:
    name = "launched"
    fate = Fate(laptop, name)
    config = laptop.config(name, trials=1000, steps=40, validation_interval=5)
    tuning = PodTuning(laptop, name, config)
    first = tuning.start(1)
    working = uids(fate.both_at_work())
    (job,) = laptop.jobs(name)

    fate.evict(laptop.cluster.get("pod", first, laptop.namespace))
    second = tuning.start(2)
    eventually(lambda: laptop.cluster.phase(second, laptop.namespace) != "Pending", "the next launcher runs", 120)
    eventually(lambda: "is there and taken over" in laptop.cluster.logs(second, laptop.namespace), "the Job is taken over", 180)
    assert uids(fate.both_at_work()) == working, "workers have noticed nothing"
    assert [found["metadata"]["uid"] for found in laptop.jobs(name)] == [job["metadata"]["uid"]]

    budget = end_soon(laptop, name)
    eventually(lambda: laptop.cluster.phase(second, laptop.namespace) in ("Succeeded", "Failed"), "the launcher ends", 400)
    log = laptop.cluster.logs(second, laptop.namespace)
    assert laptop.cluster.phase(second, laptop.namespace) == "Succeeded", log
    laptop.fetch(tuning.study, laptop.study(name))
    assert (laptop.study(name) / "best.yaml").is_file()
    assert laptop.judge(name, config, budget, witness) == []
    assert laptop.jobs(name) == []
    for secret in laptop.secrets:
        assert secret not in log
