"""Studies whose trials run in pods of a real cluster, as whoever tunes from a laptop has them: commands, what they leave, who was seen at it."""

import base64
import os
import re
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import sqlalchemy
import yaml
from optuna.trial import FrozenTrial, TrialState

from tests.chaos.judgement import Fault, judge_runs, judge_tracking, judge_trials
from tests.chaos.plan import Plan, Stage
from tests.chaos.witness import PROC, Seen, Witness, worker_of
from tests.cluster.cluster import ROOT, Cluster, absent
from tests.cluster.conftest import Images, Stack
from tests.conftest import TINY
from tests.tracking.relay import Relay
from tts.config import Config
from tts.config.load import override, to_json
from tts.config.presets import demo

OURS = "app.kubernetes.io/component=trial"
SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "3Gi"}}
"""Two workers at a time, and what they talk to, fit two cores."""
_LOG = re.compile(r"/trials/(\d+)/trial\.log$")


class Tuning:
    """A `tts tune` that runs on this machine."""

    def __init__(self, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def said(self) -> str:
        """All that it printed, and those before it."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ended(self, seconds: float) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"tts tune does not end within {seconds:g} s: {self.said()[-3000:]}") from None

    def kill(self) -> None:
        """At once, without a word."""
        self.process.kill()
        self.process.wait()


class Laptop:
    """This machine: it reaches the cluster's API, its database, its tracking server and the object store, and has no volume of the cluster's."""

    def __init__(self, cluster: Cluster, stack: Stack, images: Images, features: Path, folder: Path) -> None:
        self.cluster, self.namespace, self.store, self.image, self.folder = cluster, stack.namespace, stack.store, images.tts, folder
        self.local_features = features
        self.place = f"{stack.store.uri}/{folder.name}"
        self.features = f"{self.place}/features"
        self._storage = self._secret("tts-study", "storage")
        self.database = self._storage.replace("tts-postgresql:5432", "{}:{}".format(*self._address("tts-postgresql")))
        host, port = self._address("tts-mlflow")
        self._relay = Relay(port, host)  # the server answers to few names, and 127.0.0.1 is one
        self._relay.up()
        self.tracking = self._relay.uri
        self._tunings: list[Tuning] = []
        publish = "import sys; from pathlib import Path; from tts.storage import publish; publish(Path(sys.argv[1]), sys.argv[2])"
        subprocess.run([sys.executable, "-c", publish, features, self.features], env=self.environment, check=True, timeout=120)

    @property
    def environment(self) -> dict[str, str]:
        """What is kept out of arguments, and the way to the services."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TTS_", "MLFLOW_"))}
        told = {"TTS_STORAGE": self.database, "MLFLOW_TRACKING_URI": self.tracking, "TTS_CACHE": str(self.folder / "cache"), "PYTHONPATH": str(ROOT)}
        return kept | self.store.environment() | told

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand nowhere in the open."""
        password = self._storage.partition("://")[2].partition("@")[0].partition(":")[2]
        return self.store.secret_key, password

    def config(self, name: str, **knobs: Any) -> Config:
        """For the study `name`: a tiny network, pods of a small template; `knobs` of sections tuning and cluster, and `resources` of a pod."""
        file = self.folder / f"pod-{uuid4().hex[:6]}.yaml"
        pod = yaml.safe_load((ROOT / "manifests" / "base" / "trial-pod.yaml").read_text(encoding="utf-8"))
        pod["spec"]["containers"][0]["resources"] = knobs.pop("resources", SMALL)
        file.write_text(yaml.safe_dump(pod), encoding="utf-8")
        tuning = {
            "launcher": "kubernetes", "runs_uri": f"{self.place}/runs", "workers": 2, "pruner": "none", "sampler": "random", "max_retries": 100,
            "heartbeat_seconds": 1.0, "stale_seconds": 8.0, "launcher_stale_seconds": 60.0,
        }  # fmt: skip
        cluster = {"namespace": self.namespace, "template": str(file), "image": self.image, "grace_seconds": 30, "pod_retries": 50}
        cluster |= {name: knobs.pop(name) for name in cluster if name in knobs}
        said = {f"tuning.{name}": value for name, value in (tuning | knobs).items()} | {f"cluster.{name}": value for name, value in cluster.items()}
        return override(demo(), {**TINY, "tracking.backend": "mlflow", "tracking.experiment": f"{self.folder.name} {name}", **said})

    def tune(self, config: Config, name: str) -> Tuning:
        """Starts `tts tune`, for the second time as for the first."""
        file = self.folder / f"{name}.json"
        file.write_text(to_json(config), encoding="utf-8")
        arguments = [self.features, self.study(name), "--study", name, "--config", file, "--launcher", "kubernetes", "--verbose"]
        made = Tuning([sys.executable, "-m", "tts.cli", "tune", *map(str, arguments)], self.environment, self.folder / f"{name}.log")
        self._tunings.append(made)
        return made

    def tts(self, *arguments: object, seconds: float = 120) -> str:
        """What another command prints; it must end with 0."""
        command = [sys.executable, "-m", "tts.cli", *map(str, arguments)]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=seconds, check=False)
        assert done.returncode == 0, f"tts {arguments[0]}: {done.stdout}{done.stderr}"
        return done.stdout

    def worker_env(self) -> list[dict[str, Any]]:
        """What the manifests' template gives a container: each secret by reference."""
        pod = yaml.safe_load((ROOT / "manifests" / "base" / "trial-pod.yaml").read_text(encoding="utf-8"))
        env: list[dict[str, Any]] = pod["spec"]["containers"][0]["env"]
        return env

    def fetch(self, place: str, folder: Path) -> None:
        """A folder in the object store, brought here."""
        prefix = f"{place.removeprefix(f'{self.store.uri}/')}/"
        for key in self.store.objects(prefix):
            file = folder / key.removeprefix(prefix)
            file.parent.mkdir(parents=True, exist_ok=True)
            self.store.client().download_file(self.store.bucket, key, str(file))

    def study(self, name: str) -> Path:
        """The study's folder."""
        return self.folder / name

    def trials(self, name: str) -> list[FrozenTrial]:
        """By plain Optuna; none while the database is away or the study not there."""
        engine = {"poolclass": sqlalchemy.pool.NullPool, "connect_args": {"connect_timeout": 5}}
        url = self.database.replace("postgresql://", "postgresql+psycopg://")
        with suppress(KeyError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError):
            storage = optuna.storages.RDBStorage(url, engine, skip_compatibility_check=True, skip_table_creation=True)
            return optuna.load_study(study_name=name, storage=storage).get_trials(deepcopy=False)
        return []

    def jobs(self, name: str) -> list[dict[str, Any]]:
        """Jobs of the study."""
        found: list[dict[str, Any]] = self.cluster.get("jobs", namespace=self.namespace)
        return [job for job in found if job["metadata"]["annotations"].get("smart-tuner-tts/study") == name]

    def pods(self, name: str) -> list[dict[str, Any]]:
        """Pods of the study's Job that run and are to go on."""
        owners = {job["metadata"]["uid"] for job in self.jobs(name)}
        found: list[dict[str, Any]] = self.cluster.get("pods", namespace=self.namespace, labels=OURS)
        ours = [pod for pod in found if pod["metadata"]["ownerReferences"][0]["uid"] in owners]
        return [pod for pod in ours if pod["status"]["phase"] == "Running" and not pod["metadata"].get("deletionTimestamp")]

    def at_work(self, name: str, *, but: str = "") -> list[tuple[dict[str, Any], FrozenTrial]]:
        """Running pods, other than the one of the uid `but`, each with the trial that it trains and has reported of since it began with it."""
        running = [trial for trial in self.trials(name) if trial.state == TrialState.RUNNING and trial.intermediate_values]
        hosts = {trial.user_attrs.get("lease", "").partition(":")[0].rpartition("-")[0].rpartition("-")[0]: trial for trial in running}
        pods = [pod for pod in self.pods(name) if pod["metadata"]["uid"] != but]
        return [(pod, hosts[host]) for pod in pods if (host := pod["spec"]["hostname"]) in hosts]

    def judge(self, name: str, config: Config, budget: int, witness: "PodWitness | None" = None) -> list[Fault]:
        """What must not be: a trial lost or run twice, a budget that is not exact, steps or tracked values that are missing or there twice."""
        trials = self.trials(name)
        stage = self._stage(name, config, trials)
        seen = witness.seen if witness else {str(trial.number): {0} for trial in trials}
        faults = [*judge_trials(trials, budget), *judge_overlaps(trials), *judge_runs(stage, trials, seen)]
        faults += judge_tracking(stage, trials, self.tracking)
        if [trial.number for trial in trials] != list(range(budget)):
            faults.append(Fault("study_budget_error", f"the trials' numbers are {[trial.number for trial in trials]}"))
        doubles = witness.doubles if witness else {}
        return faults + [Fault("study_trials_run_twice", f"trial {number}: {text}") for number, text in doubles.items()]

    def close(self) -> None:
        """Ends what runs."""
        for tuning in self._tunings:
            tuning.kill()
            sys.stdout.write(f"{tuning.said()[-5000:]}\n")  # pytest shows it with a failure
        self.cluster.kubectl("delete", "jobs", "--all", "--namespace", self.namespace, "--wait=false")
        self._relay.refuse()

    def _stage(self, name: str, config: Config, trials: list[FrozenTrial]) -> Stage:
        """The study as the judges of tests/chaos look at it: its trials' runs, as the object store has them, in a folder of this machine."""
        folder = self.folder / f"{name}-judged"
        study = folder / "study"
        study.mkdir(parents=True)
        (study / "tracking.json").write_bytes((self.study(name) / "tracking.json").read_bytes())
        client = self.store.client()
        for trial in trials:
            prefix = trial.user_attrs["run"].removeprefix(f"{self.store.uri}/")
            run = study / "trials" / str(trial.number)
            run.mkdir(parents=True)
            for file in ("metrics.jsonl", "config.json"):
                client.download_file(self.store.bucket, f"{prefix}/{file}", str(run / file))
        return Stage(folder, Plan(0, 0, 0, (), outages=False, replayed=0, seconds=0), config, self.database, {})

    def _secret(self, name: str, key: str) -> str:
        return base64.b64decode(self.cluster.get("secret", name, self.namespace)["data"][key]).decode()

    def _address(self, service: str) -> tuple[str, int]:
        """Of a Service, which this machine must reach as the node does."""
        spec = self.cluster.get("service", service, self.namespace)["spec"]
        address, port = spec["clusterIP"], spec["ports"][0]["port"]
        try:
            socket.create_connection((address, port), timeout=10).close()
        except OSError as error:
            absent(f"Service {service} of the cluster is not reached from here at {address}:{port} ({error}); route its addresses to the node")
        return address, port


def judge_overlaps(trials: list[FrozenTrial]) -> Iterator[Fault]:
    """Attempts at one trial follow each other: each noted when it began and, with each sign of life, how long it had lasted."""
    for trial in trials:
        spans = trial.user_attrs.get("spans", [])
        if not spans:
            yield Fault("study_trials_unseen", f"trial {trial.number} notes no attempt")
        if any(later[0] < earlier[1] for earlier, later in pairwise(spans)):
            yield Fault("study_trials_run_twice", f"trial {trial.number} was trained at {spans}")


class PodWitness(Witness):
    """Looks at processes in pods of this machine, as root: their files have other paths here, for each pod has its own folders."""

    def __init__(self) -> None:
        super().__init__(Path("/"))

    def _at_work(self) -> dict[str, set[Seen]]:
        found: dict[str, set[Seen]] = defaultdict(set)
        for entry in os.listdir(PROC):  # noqa: PTH208  # many times a second
            if entry.isdigit():
                with suppress(OSError):
                    output = _LOG.search(os.readlink(PROC / entry / "fd" / "1"))  # noqa: PTH115  # as above
                    if output and b"kubepods" in (PROC / entry / "cgroup").read_bytes():
                        found[output[1]].add(Seen(int(entry), worker_of(int(entry)), self._trains(entry, output[1])))
        return found

    def _trains(self, process: str, trial: str) -> bool:
        folder = PROC / process / "fd"
        for descriptor in os.listdir(folder):  # noqa: PTH208  # as above
            with suppress(OSError):
                if os.readlink(folder / descriptor).endswith(f"/trials/{trial}/.lock"):  # noqa: PTH115  # as above
                    return True
        return False
