"""Conditions of pods and Jobs in words: why one waits, and how one ended."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tts.errors import PreemptedError

Pod = Mapping[str, Any]

LONGEST = 400
"""Characters of a message of the cluster that are shown."""
STARTING = ("ContainerCreating", "PodInitializing")
"""Reasons for which each pod waits a moment."""
PULLING = ("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError")
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*": (\w+: )?')
"""In turn with the failure itself, which is what there is to tell."""
DISRUPTED = {
    "EvictionByEvictionAPI": "was evicted, as when its node is drained",
    "PreemptionByScheduler": "made room for a pod of higher priority",
    "DeletionByTaintManager": "left its node, which was tainted or lost",
    "DeletionByPodGC": "was on a node that is gone",
    "TerminationByKubelet": "was ended by its node",
}
"""By the reason of the condition DisruptionTarget."""
MEANINGS = {64: "usage or configuration", 65: "bad data", 69: "a service is out of reach", 73: "cannot write", 75: "handed its trial back"}
KILLED = 137
ASKED = 143


@dataclass(frozen=True)
class Fate:
    """How a pod ended that did not succeed."""

    index: int
    """The worker's number."""
    pod: str
    code: int
    """Exit code of its container; where it has none, that of one that was preempted."""
    reason: str
    """In words that follow the worker's name."""
    log: str
    """Last lines, if the pod keeps them."""
    container: str = ""
    """Whose log may tell more."""

    def __str__(self) -> str:
        last = self.log.strip().splitlines()[-1:]
        return f"worker {self.index} {self.reason} (pod {self.pod})" + (f": {last[0][:LONGEST]}" if last else "")


def index_of(pod: Pod) -> int:
    """The index of an Indexed Job that the pod runs."""
    marks = {**pod["metadata"].get("annotations", {}), **pod["metadata"].get("labels", {})}
    return int(marks["batch.kubernetes.io/job-completion-index"])


def waits_for(pod: Pod) -> str:
    """Why a pod does not run: empty if it does, or if it is about to."""
    status = pod.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            if condition.get("reason") == "SchedulingGated":
                return f"scheduling gates hold it: {', '.join(gate['name'] for gate in pod['spec'].get('schedulingGates', []))}"
            return brief(condition.get("message", "")) or "no node has taken it yet"
    for container in _containers(status):
        waiting = container.get("state", {}).get("waiting") or {}
        reason = waiting.get("reason", "")
        if reason in PULLING:
            return f"image {container['image']} cannot be pulled: {brief(_BACK_OFF.sub('', waiting.get('message', '')) or reason)}"
        if reason and reason not in STARTING:
            return f"{reason}: {brief(waiting.get('message', ''))}"
    if status.get("phase") == "Running" and _says(status, "Ready") == "False" and any("running" in c.get("state", {}) for c in _containers(status)):
        return f"its node {pod['spec'].get('nodeName')} does not answer"
    return ""


def fate_of(pod: Pod) -> Fate:
    """How a pod whose phase is Failed ended."""
    status = pod["status"]
    ended = [(c, c["state"]["terminated"]) for c in _containers(status) if "terminated" in c.get("state", {})]
    wrong = [(container, state) for container, state in ended if state.get("exitCode")]
    name, state = (wrong[0][0]["name"], wrong[0][1]) if wrong else ("", {})
    code = int(state.get("exitCode", PreemptedError.exit_code))
    reason = _disruption(status) or _deletion(pod, code) or _kubelet(status) or _own(pod, name, state, code)
    log = state.get("message", "").strip()
    started = bool(state.get("startedAt")) and state.get("reason") not in ("StartError", "ContainerStatusUnknown")
    return Fate(index_of(pod), pod["metadata"]["name"], code, reason, log if started else "", name if started and not log else "")


def brief(message: str) -> str:
    """A message of the cluster on one line, without what only its developers read."""
    line = " ".join(message.split()).split(" preemption: ")[0]
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."


def indexes(text: str) -> list[int]:
    """The numbers that a Job's status writes as "1,3-5"."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def counted(text: str) -> int:
    """How many they are."""
    ends = [part.split("-") for part in text.split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)


def _containers(status: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]


def _says(status: Mapping[str, Any], kind: str) -> str:
    return next((str(condition["status"]) for condition in status.get("conditions", []) if condition["type"] == kind), "")


def _disruption(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            message = status.get("message") or condition.get("message", "")
            known = DISRUPTED.get(condition.get("reason", ""))
            if known and condition.get("reason") != "TerminationByKubelet":
                return known
            return f"{known or 'was disrupted'}: {brief(message)}"
    return ""


def _deletion(pod: Pod, code: int) -> str:
    return f"was deleted, and ended with exit code {code}" if pod["metadata"].get("deletionTimestamp") else ""


def _kubelet(status: Mapping[str, Any]) -> str:
    """What the node did not let run, or ended: Evicted, DeadlineExceeded, OutOfcpu ..."""
    return f"was ended by the cluster ({status['reason']}): {brief(status.get('message', ''))}" if status.get("reason") else ""


def _own(pod: Pod, name: str, state: Mapping[str, Any], code: int) -> str:
    reason = state.get("reason", "")
    if reason == "OOMKilled":
        limit = next((c.get("resources", {}).get("limits", {}).get("memory") for c in pod["spec"]["containers"] if c["name"] == name), None)
        more = "give it more in the pods' template or, in the pipeline, `python -m pipelines.compile --memory_limit`"
        return f"was killed for its memory (OOMKilled, limit {limit or 'its node'}); {more}"
    if reason == "StartError" or (code == 128 and reason != "Error"):
        return f"could not be started ({reason}): {brief(state.get('message', ''))}"
    if reason == "ContainerStatusUnknown":
        return "is unknown to its node, which lost it"
    if not state:
        return "failed, for a reason that the cluster does not tell"
    if code in (KILLED, ASKED):
        return f"was killed by {'SIGKILL' if code == KILLED else 'SIGTERM'} (exit code {code})"
    return f"ended with exit code {code}" + (f", {MEANINGS[code]}" if code in MEANINGS else "")
