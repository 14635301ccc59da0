"""What a step does differently in a pod: who runs its trials, under which name, and with which keys to the object store."""

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts.config import Config
from tts.errors import DataError, UsageError
from tts.step.artefact import Artefact, uploaded
from tts.storage import exists, is_remote, join, read_bytes, write_bytes, write_text

if TYPE_CHECKING:
    from tts.tuning.kubernetes.launcher import KubernetesLauncher
    from tts.tuning.launch import Task, Workers

logger = logging.getLogger(__name__)

POD = "KFP_POD_NAME"
"""Set by the backend in each step's pod."""
TEMPLATE = Path("/etc/tts/template/trial-pod.yaml")
"""Where the pipeline mounts the platform's template of trial pods, if it keeps one."""
LONGEST_NAME = 50
"""Characters of a study's name: the names of its Job and pods add to it, and a label has at most 63."""
ADDRESS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION")
"""Variables of the object store that are no secrets."""
STUDY_FILE = "study.name"
"""Below `work`: the study that belongs to it. Another run of the pipeline with the same `work` goes on with it."""


def in_pod() -> bool:
    """Whether this step runs on a cluster."""
    return bool(os.environ.get(POD))


def study_name(workflow: str, work: str) -> str:
    """The study of a run of the pipeline, fit for a label: that of `work` if it has one already, else one made of the Workflow's name.

    Raises DataError for a file in `work` that names none, UsageError without a Workflow's name.
    """
    place = join(work, STUDY_FILE) if work else ""
    known = _read(place) if place else None
    if known is not None:
        if known != label(known):
            raise DataError(f"{place} should name a study, and says {known[:80]!r}; remove it, or name another folder as work")
        return known
    if not workflow:
        raise UsageError("the name of the pipeline's run is not given; compile the pipeline anew (make compile) and upload it")
    name = label(workflow)
    if place:
        _write(place, name)
    return name


def label(text: str) -> str:
    """A text as a label's value and the beginning of an object's name: lower case letters, digits, hyphens."""
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if plain == text and len(plain) <= LONGEST_NAME:
        return plain
    # Cut or changed, it might be the same as another's.
    return f"{plain[: LONGEST_NAME - 9].rstrip('-') or 'study'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def storage(*, pods: bool) -> str | None:
    """The database of a study whose trials run in pods, by reference to a Secret; None for a file in the study's folder, which no other run shares.

    Raises UsageError where pods would share a file.
    """
    if not pods:
        return None
    from tts.tuning.database.address import STORAGE_VARIABLE, given_storage

    url = given_storage(None)
    if url is None:
        raise UsageError(
            f"{STORAGE_VARIABLE} is not set: trial pods share a database server, whose URL is the key storage of the Secret tts-study in the run's "
            "namespace (kubectl create secret generic tts-study --from-file=storage=/dev/stdin, which reads postgresql://... from its "
            "input); or set launcher to local"
        )
    return url


def knobs(study: Artefact, work: str, image: str) -> dict[str, str]:
    """What the configuration says of trial pods where the form's overrides do not. Raises UsageError."""
    template = str(TEMPLATE) if TEMPLATE.is_file() else ""
    return {"tuning.launcher": "kubernetes", "tuning.runs_uri": runs_uri(study, work), "cluster.image": image, "cluster.template": template}


def runs_uri(study: Artefact, work: str) -> str:
    """Where trials keep their checkpoints: below `work` if that is a URI, else beside the study's artefact, whose next reader needs them not."""
    if work and is_remote(work):
        return join(work, "runs")
    if not uploaded(study):
        raise UsageError(f"trial pods need an object store for their checkpoints, and this pipeline keeps its artefacts in {study.uri}")
    return join(study.uri.rstrip("/").rsplit("/", 1)[0], "runs")


def use_store_of(*artefacts: Artefact) -> dict[str, str]:
    """Takes endpoint and region of the artefacts' store from what the backend notes with them, where the environment names none.

    Returns the variables that it set.
    """
    taken: dict[str, str] = {}
    for artefact in artefacts:
        noted = artefact.metadata.get("store_session_info") or "{}"
        try:
            params = dict(json.loads(noted).get("Params") or {})
        except (ValueError, TypeError, AttributeError):
            logger.warning("%s: the backend's note about its store cannot be read: %s", artefact.uri, noted)
            continue
        for variable, value in _store(params).items():
            if value and not os.environ.get(variable):
                os.environ[variable] = taken[variable] = value
    return taken


def _store(params: Mapping[str, str]) -> dict[str, str]:
    endpoint = params.get("endpoint", "")
    if endpoint and "://" not in endpoint:
        endpoint = f"{'http' if params.get('disableSSL', '').lower() == 'true' else 'https'}://{endpoint}"
    named = any(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"))
    return {"AWS_ENDPOINT_URL": "" if named else endpoint, "AWS_REGION": params.get("region", "")}


def placement_of(placement: Mapping[str, Any], store: Mapping[str, str]) -> dict[str, Any]:
    """What the pipeline set on the tune task, for the trial pods, with the object store's address.

    References to optional Secrets and ConfigMaps that this step got nothing from would hide what the platform's template says instead.

    Args:
        placement: The task's, as Kubeflow's TaskConfig says it.
        store: What `use_store_of` set, which no reference leads to.
    """
    given = {name: value for name, value in placement.items() if value}
    env = [entry for entry in given.pop("env", ()) if "valueFrom" not in entry or (os.environ.get(entry["name"]) and entry["name"] not in store)]
    known = {entry["name"] for entry in env}
    env += [{"name": name, "value": os.environ[name]} for name in ADDRESS if os.environ.get(name) and name not in known]
    return {**given, "env": env} if env else given


class TrialPods:
    """The launcher of a pipeline's step: its workers read the features from an object store, though this process has them as a folder."""

    def __init__(self, launcher: "KubernetesLauncher", features: str) -> None:
        self._launcher, self._features = launcher, features

    def start(self, task: "Task", workers: int) -> None:
        """Starts them on the URI."""
        self._launcher.start(replace(task, features=self._features), workers)

    def poll(self) -> "Workers":
        """As the launcher says."""
        return self._launcher.poll()

    def preempted(self) -> None:
        """The Job stays."""
        self._launcher.preempted()

    def stop(self) -> None:
        """As the launcher does."""
        self._launcher.stop()

    def ending(self) -> AbstractContextManager[None]:
        """Ends the pods with a run that is terminated: the backend leaves a step about a second, and deletes nothing itself."""
        from tts.tuning.kubernetes.termination import on_termination

        return on_termination(self._launcher, os.environ[POD]) if in_pod() else nullcontext()


def trial_pods(config: Config, features: Artefact, placement: Mapping[str, Any], workflow: str) -> TrialPods:
    """Trial pods that belong to the pipeline's run, placed as `placement_of` says. Raises UsageError, DataError, ServiceUnavailableError."""
    from tts.tuning.kubernetes.launcher import KubernetesLauncher

    if not is_remote(features.uri):
        raise UsageError(f"trial pods read the features from an object store, and these are at {features.uri}; set launcher to local")
    return TrialPods(KubernetesLauncher.of(config, placement=placement, owner=workflow), features.uri)


def _read(place: str) -> str | None:
    if is_remote(place):
        return read_bytes(place).decode(errors="replace").strip() if exists(place) else None
    path = Path(place)
    return path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else None


def _write(place: str, text: str) -> None:
    if is_remote(place):
        write_bytes(place, f"{text}\n".encode())
    else:
        write_text(Path(place), f"{text}\n")
