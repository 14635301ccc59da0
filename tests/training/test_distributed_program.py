"""The program under torchrun."""

import signal
import subprocess
import sys
import time

import pytest
import torch

from tts.config.load import override, to_json
from tts.training.checkpoint import Checkpoints
from tts.training.metrics_log import read_metrics
from tts.training.run_folder import read_state

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tts", "train"]


@pytest.mark.slow
def test_sigterm_stops_both_processes_and_the_same_command_goes_on(features, tiny, tmp_path):
    run, config = tmp_path / "run", tmp_path / "config.json"
    config.write_text(to_json(override(tiny, {"training.device": "cpu"})))
    command = [*TORCHRUN, str(features), str(run), "--config", str(config)]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen([*command, "--training.steps", "100000"], stdout=log, stderr=log)
        while first.poll() is None and (not (run / "metrics.jsonl").is_file() or len(read_metrics(run / "metrics.jsonl")) < 3):
            time.sleep(0.02)
        first.send_signal(signal.SIGTERM)
        assert first.wait(60) != 0
    stopped = read_state(run)
    assert (stopped.state, stopped.ranks) == ("preempted", 2), (tmp_path / "log").read_text()
    assert Checkpoints(run).newest(torch.device("cpu"))["step"] == stopped.step

    done = subprocess.run([*command, "--training.steps", str(stopped.step + 2)], capture_output=True, text=True, check=False, timeout=200)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained: ") == done.stdout.count("best: ") == 1
    assert done.stderr.count("2 processes train together on the CPU") == 1
    assert "Traceback" not in done.stderr
    finished = read_state(run)
    assert (finished.state, finished.step) == ("finished", stopped.step + 2)
