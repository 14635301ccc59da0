"""What a trial pod costs beside its trials: from its start to the first training step, and from one trial's last step to the next one's first.

The test overlay is installed into the cluster of KUBECONFIG, and `tts tune` runs a study of tiny trials with one worker, as users have it: features
and checkpoints in the object store, database and tracking server in the cluster. A process in the worker's pod looks at the trials' files: a line in
metrics.jsonl is the end of a trial's first step, run.json says when the last one was made. The pod starts when its first process does: what the
cluster takes to schedule it, and to make the container, is the cluster's.

    python -m tests.benchmarks.trial_pod
"""

import json
import os
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from statistics import median

from tests.cluster.cluster import Cluster, Control, eventually
from tests.cluster.conftest import Images, installed
from tests.cluster.object_store import server
from tests.cluster.studies import Laptop
from tests.conftest import TINY
from tts.config.load import override
from tts.config.presets import demo
from tts.data.demo_corpus import write_demo_corpus
from tts.data.prepare import prepare
from tts.progress import Silent

STUDY = "trial pod"
PODS = 2
"""Each is a worker of a study of its own: the first one after the image was loaded reads it from the disk."""
TRIALS = 8
TIMES = """
import glob, json, os, sys, time
ticks = int(open("/proc/1/stat").read().rpartition(")")[2].split()[19])
begun = time.time() - float(open("/proc/uptime").read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")
first, last = {}, {}
while len(last) < int(sys.argv[1]):
    for run in glob.glob("/tmp/tts-*/*/trials/*"):
        number = int(os.path.basename(run))
        try:
            if number not in first and os.path.getsize(run + "/metrics.jsonl"):
                first[number] = time.time()
            if number not in last and json.load(open(run + "/run.json"))["state"] == "finished":
                last[number] = os.path.getmtime(run + "/run.json")
        except (OSError, ValueError):
            pass
    time.sleep(0.005)
print(json.dumps([begun, first, last]))
"""


def measure() -> dict[str, float]:
    """trial_pod_overhead_seconds: the longest of PODS; trial_pod_gap_seconds: the median between two trials. Both with the step that ends them."""
    cluster = Cluster()
    program = os.environ.get("TTS_CLUSTER_CONTROL")
    images = Images(tts=f"smart-tuner-tts:{os.environ.get('TTS_TEST_TAG', 'test')}", postgresql="", mlflow="")
    store = server(Control(program, cluster) if program else None)
    starts, gaps = [], []
    with tempfile.TemporaryDirectory() as name, installed(cluster, store) as stack:
        folder = Path(name)
        write_demo_corpus(folder / "corpus", language="en", utterances=20, seed=0, progress=Silent())
        prepare(folder / "corpus", folder / "features", override(demo(), TINY), progress=Silent())
        laptop = Laptop(cluster, stack, images, folder / "features", folder)
        try:
            for number in range(PODS):
                begun, first, last = _times(laptop, f"{STUDY} {number}")
                starts.append(first[0] - begun)
                gaps += [first[later] - last[earlier] for earlier, later in pairwise(range(TRIALS))]
        finally:
            laptop.close()
    return {"trial_pod_overhead_seconds": max(starts), "trial_pod_gap_seconds": median(gaps), "trial_pod_gap_seconds_most": max(gaps)}


def _times(laptop: Laptop, name: str) -> tuple[float, dict[int, float], dict[int, float]]:
    """When a worker's pod began, and when each of its trials made its first step and its last, in seconds since 1970."""
    tuning = laptop.tune(laptop.config(name, trials=TRIALS + 1, steps=8, validation_interval=4, workers=1), name)
    (found,) = eventually(lambda: laptop.jobs(name) and laptop.pods(name), "the worker's pod runs", 120)
    told = laptop.cluster.inside(found["metadata"]["name"], laptop.namespace, "python3", "-S", "-c", TIMES, str(TRIALS), seconds=600)
    if tuning.ended(120) != 0:
        raise RuntimeError(tuning.said())
    begun, first, last = json.loads(told)
    return begun, *({int(number): when for number, when in times.items()} for times in (first, last))


if __name__ == "__main__":
    if not os.environ.get("KUBECONFIG"):
        sys.exit("trial_pod: KUBECONFIG names no cluster")
    json.dump(measure(), sys.stdout, indent=2)
    sys.stdout.write("\n")
