"""What the launcher keeps of its Job and of each pod: a few words, whatever their size in the API."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tts.errors import PreemptedError
from tts.tuning.kubernetes.reasons import Fate, counted, fate_of, index_of, indexes, waits_for


@dataclass(frozen=True, slots=True)
class Living:
    """A pod that has not ended."""

    uid: str
    index: int
    name: str
    node: str
    running: bool
    reason: str
    """Why it waits; empty: it runs or is about to."""
    since: float
    """Seconds of the monotonic clock when it was first seen."""
    ending: float | None
    """... when it was first seen to be deleted."""
    grace: float
    """Seconds that it has from then on."""


@dataclass(frozen=True, slots=True)
class JobState:
    """How the Job is."""

    uid: str
    suspended: bool
    parallelism: int
    completions: int
    succeeded: int
    failed: tuple[int, ...]
    """Indexes that are not tried again."""
    pods: int
    """That live, those that are being deleted among them."""
    finished: str
    """Complete, Failed, or empty."""
    reason: str
    message: str
    deleted: bool = False
    failures: int = 0
    """Pods that failed, whatever became of their indexes."""

    @property
    def worn(self) -> bool:
        """Whether workers are lost for good, or all of them wait out their failures, for minutes perhaps, with few retries left."""
        return bool(self.failed) or (self.pods == 0 and not self.suspended and self.failures > 1)

    @property
    def left(self) -> int:
        """Indexes that are not at their end."""
        return self.completions - self.succeeded - len(self.failed)

    @property
    def missing(self) -> int:
        """Pods that should live and do not."""
        return 0 if self.suspended or self.finished else max(0, min(self.parallelism, self.left) - self.pods)


class JobBook:
    """Keeps the state of one Job."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self._uid = job["metadata"]["uid"]
        self.state = job_state(job)

    def seen(self, item: Mapping[str, Any]) -> None:
        """As it is now. One of the same name that somebody made since is another's."""
        if item["metadata"]["uid"] == self._uid:
            self.state = job_state(item)

    def gone(self, uid: str) -> None:
        """It was deleted."""
        if uid == self._uid:
            self.state = replace(self.state, deleted=True)

    def only(self, uids: set[str]) -> None:
        """... perhaps while nobody watched."""
        if self._uid not in uids:
            self.gone(self._uid)


class PodBook:
    """Keeps the pods that live, and how others ended until it is asked for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._living: dict[str, Living] = {}
        self._ended: set[str] = set()
        self._fates: deque[Fate] = deque()

    def seen(self, item: Mapping[str, Any]) -> None:
        """A pod as it is now."""
        uid, phase = item["metadata"]["uid"], item.get("status", {}).get("phase")
        with self._lock:
            if phase in ("Succeeded", "Failed"):
                self._living.pop(uid, None)
                if phase == "Failed" and uid not in self._ended:
                    self._ended.add(uid)
                    self._fates.append(fate_of(item))
            elif uid not in self._ended:
                self._living[uid] = self._as_it_is(uid, item)

    def gone(self, uid: str) -> None:
        """Its object was deleted. Who was alive until then was deleted without waiting for its end."""
        with self._lock:
            self._drop(uid)

    def only(self, uids: set[str]) -> None:
        """Those that went while nobody watched."""
        with self._lock:
            for uid in self._living.keys() - uids:
                self._drop(uid)
            self._ended &= uids

    def living(self) -> list[Living]:
        """Pods that have not ended."""
        with self._lock:
            return list(self._living.values())

    def fates(self) -> list[Fate]:
        """Pods that failed since this was last asked."""
        with self._lock:
            new = list(self._fates)
            self._fates.clear()
            return new

    def _drop(self, uid: str) -> None:
        pod = self._living.pop(uid, None)
        if pod is not None:
            self._fates.append(Fate(pod.index, pod.name, PreemptedError.exit_code, "was deleted", ""))
        self._ended.discard(uid)

    def _as_it_is(self, uid: str, item: Mapping[str, Any]) -> Living:
        now, old = time.monotonic(), self._living.get(uid)
        return Living(
            uid=uid, index=index_of(item), name=item["metadata"]["name"], node=item["spec"].get("nodeName", ""),
            running=item.get("status", {}).get("phase") == "Running", reason=waits_for(item), since=old.since if old else now,
            ending=((old and old.ending) or now) if item["metadata"].get("deletionTimestamp") else None,
            grace=item["metadata"].get("deletionGracePeriodSeconds") or 0,
        )  # fmt: skip


def job_state(job: Mapping[str, Any]) -> JobState:
    """A Job in short."""
    spec, status = job["spec"], job.get("status", {})
    end: Mapping[str, Any] = next((c for c in status.get("conditions", []) if c["type"] in ("Complete", "Failed") and c["status"] == "True"), {})
    return JobState(
        uid=job["metadata"]["uid"], suspended=bool(spec.get("suspend")), parallelism=spec["parallelism"], completions=spec["completions"],
        succeeded=counted(status.get("completedIndexes", "")), failed=tuple(indexes(status.get("failedIndexes", ""))),
        pods=status.get("active", 0) + status.get("terminating", 0), finished=end.get("type", ""), reason=end.get("reason", ""),
        message=end.get("message", ""), deleted=False, failures=status.get("failed", 0),
    )  # fmt: skip
