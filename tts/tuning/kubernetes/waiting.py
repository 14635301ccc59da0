"""Why workers wait, in lines for a person, and how long that is borne."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tts.config import ClusterConfig
from tts.errors import ServiceUnavailableError
from tts.tuning.kubernetes.access import Cluster, RefusedError
from tts.tuning.kubernetes.books import JobState, Living
from tts.tuning.kubernetes.reasons import brief

SLOW_SECONDS = 20.0
"""After which a container that is being created, or a pod that is not made, is asked about."""
MISSING_SECONDS = 5.0
"""The Job's status is that much behind."""
STUCK_SECONDS = 30.0
"""Beyond its grace period, after which a pod that does not end is told of."""
ASK_SECONDS = 15.0
"""Between two looks at the events of one object."""
LINES = 8


class Waiting:
    """Tells why. It is asked at each look at the workers, and asks the cluster for events now and then."""

    def __init__(self, cluster: Cluster, config: ClusterConfig) -> None:
        self._cluster, self._config = cluster, config
        self._asked: dict[str, tuple[float, str]] = {}
        self._missing: float | None = None
        self._still: float | None = None

    def lines(self, job: JobState, pods: Sequence[Living], study: str, *, restarted: bool) -> tuple[str, ...]:
        """A line for each reason, the most frequent first. Raises ServiceUnavailableError after cluster.pending_minutes."""
        if job.suspended:
            self._still = None  # its turn comes
            queue = f"queue {self._config.queue} has not admitted it" if self._config.queue else "somebody suspended it"
            return (f"{job.parallelism} workers wait: the Job is suspended, {queue}",)
        now = time.monotonic()
        reasons = Counter(reason for pod in pods if (reason := self._reason(pod, now)))
        lines = [f"{_pods(number)}: {reason}" for reason, number in reasons.most_common(LINES)]
        lines += self._not_made(job, now, restarted=restarted)
        self._bear(lines, now, study, running=any(pod.running for pod in pods))
        return tuple(lines)

    def _reason(self, pod: Living, now: float) -> str:
        if pod.ending is not None:
            stuck = now - pod.ending > pod.grace + STUCK_SECONDS
            return f"the one before it does not end on node {pod.node}; is the node lost?" if stuck else ""
        if pod.reason or pod.running or now - pod.since < SLOW_SECONDS:
            return pod.reason
        return self._complaint(pod.uid, now) or f"container is being created on node {pod.node}"

    def _not_made(self, job: JobState, now: float, *, restarted: bool) -> list[str]:
        """Pods that the cluster does not make: a quota, an admission rule, or the pause after a failure."""
        if not job.missing:
            self._missing = None
            return []
        self._missing = self._missing or now
        if now - self._missing < MISSING_SECONDS:
            return []
        complaint = self._complaint(job.uid, now)
        if complaint:
            return [f"{_pods(job.missing)}: the cluster does not make them: {complaint.removeprefix('Error creating: ')}"]
        if restarted:
            return [f"{_pods(job.missing)}: after a failure Kubernetes pauses, up to minutes, before it starts a worker again"]
        return [f"{_pods(job.missing)}: the cluster has not made them yet"] if now - self._missing > SLOW_SECONDS else []

    def _complaint(self, uid: str, now: float) -> str:
        """The latest warning among an object's events."""
        asked, said = self._asked.get(uid, (-ASK_SECONDS, ""))
        if now - asked < ASK_SECONDS:
            return said
        try:
            found = self._cluster.ask(
                "GET", "events", query={"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": 100}, expected=(401, 403), seconds=1.0
            )["items"]
            latest: dict[str, Any] = max(found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "", default={})
            said = brief(latest.get("message", ""))
        except RefusedError:
            said = "the events that tell why are not for this account to read: kubectl get events"
        except ServiceUnavailableError:
            said = ""
        self._asked = {uid: (now, said), **{other: kept for other, kept in self._asked.items() if now - kept[0] < ASK_SECONDS and other != uid}}
        return said

    def _bear(self, lines: Sequence[str], now: float, study: str, *, running: bool) -> None:
        if running or not lines:
            self._still = None
            return
        self._still = self._still or now
        minutes = self._config.pending_minutes
        if minutes and now - self._still > 60 * minutes:
            raise ServiceUnavailableError(
                f"study {study!r}: no worker has run for {minutes:g} minutes (cluster.pending_minutes): {'; '.join(lines)}; "
                "the same command goes on with it"
            )


def _pods(number: int) -> str:
    return "1 pod waits" if number == 1 else f"{number} pods wait"
