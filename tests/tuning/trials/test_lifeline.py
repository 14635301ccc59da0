import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tts.tuning.trials.lifeline import Lifeline, silence_allowed

STALE = 2.0

# A worker whose process does nothing but write down the time, as fast as it can. It prints the process's id, and waits for whatever comes.
WORKER = """
import subprocess, sys
from tts.tuning.trials.lifeline import Lifeline

line = Lifeline(float(sys.argv[1]))
reader = line.theirs.fileno()
process = subprocess.Popen([sys.executable, "-c", sys.argv[3], str(reader), *sys.argv[1:3]], pass_fds=[reader], stdout=subprocess.PIPE)
line.theirs.close()
process.stdout.readline()
print(process.pid, flush=True)
print(process.wait(), flush=True)
"""
PROCESS = """
import sys, time
from multiprocessing.connection import Connection
from tts.tuning.trials.lifeline import Watch

Watch(Connection(int(sys.argv[1])), float(sys.argv[2])).start()
print("watching", flush=True)
with open(sys.argv[3], "w") as file:
    while True:
        file.write(f"{time.monotonic()!r}\\n")
        file.flush()
"""


@pytest.fixture
def worker(tmp_path):
    """A worker, and its process. Both are gone afterwards."""
    command = [sys.executable, "-c", WORKER, str(STALE), str(tmp_path / "times"), PROCESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        process = psutil.Process(int(started.stdout.readline()))
        yield started, process
        started.kill()
        if not is_gone(process):
            process.kill()


def is_gone(process):
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def written(tmp_path):
    return [float(line) for line in (tmp_path / "times").read_text().splitlines()]


def passes(seconds):
    """A condition that becomes true with time."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_a_killed_workers_process_is_gone_at_once(worker, until):
    started, process = worker

    started.kill()

    assert until(lambda: is_gone(process))


def test_a_paused_workers_process_ends_and_says_so_with_75(worker, until):
    started, process = worker

    started.send_signal(signal.SIGSTOP)
    until(lambda: is_gone(process))
    started.send_signal(signal.SIGCONT)

    assert started.stdout.readline() == "75\n"


def test_a_process_that_was_paused_with_its_worker_does_nothing_more(worker, until, tmp_path):
    started, process = worker
    until(lambda: (tmp_path / "times").exists() and len(written(tmp_path)) > 100)
    started.send_signal(signal.SIGSTOP)
    process.suspend()
    until(passes(1.2 * silence_allowed(STALE)))
    resumed = time.monotonic()

    process.resume()

    until(lambda: is_gone(process))
    assert max(written(tmp_path)) < resumed


def test_a_process_that_was_paused_alone_goes_on_for_its_worker_lived(worker, until, tmp_path):
    _, process = worker
    until(lambda: (tmp_path / "times").exists() and len(written(tmp_path)) > 100)
    process.suspend()
    until(passes(1.2 * silence_allowed(STALE)))

    process.resume()
    resumed = time.monotonic()

    until(lambda: max(written(tmp_path)[:-1]) > resumed + 1.2 * silence_allowed(STALE))
    assert process.is_running()


def test_a_reader_that_does_not_read_stops_no_worker():
    line = Lifeline(STALE)
    written = 0
    while True:  # until the pipe is full
        try:
            written += os.write(line._ours.fileno(), bytes(8))
        except BlockingIOError:
            break

    line._ping()
    line.close()

    assert written > 1000


def test_pings_end_where_nobody_reads_any_more(until):
    line = Lifeline(0.04)
    line.theirs.close()

    assert until(lambda: not line._thread.is_alive())
    line.close()
