"""What the live view of a run shows, and when it ends: by hand-made runs, a real one, and a terminal that a process believes in."""

import fcntl
import io
import json
import math
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.diagnostics.full_run import write_full_run
from tests.diagnostics.handmade_run import train, validation, write_anomaly, write_restart, write_run
from tts.config import Config
from tts.config.load import override
from tts.diagnostics.watch.drawing import drawing
from tts.diagnostics.watch.glance import BARS, Glance, Watcher, duration, happened, sparkline
from tts.diagnostics.watch.place import watched

if TYPE_CHECKING:
    from tests.s3_server import Bucket

Tts = Callable[..., tuple[int, str, str]]
CONFIG = override(Config(), {"training.steps": 100})


def begun(folder: Path, *, steps: int = 4, state: str = "running", **more: Any) -> Path:
    lines = [train(10 * n, loss=5.0 / n, seconds=2.0 * n, frames_per_second=1e4) for n in range(1, steps + 1)]
    return write_run(folder, CONFIG, [*lines, validation(20, 2.0), validation(40, 1.5)], state=state, **more)


def now(run: Path) -> Glance:
    return Watcher(run).glance()


def shown(glance: Glance, *, height: int = 60, width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(drawing(glance, height=height, width=width))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return lines


@given(values=st.lists(st.floats(-1e9, 1e9) | st.just(math.nan) | st.just(math.inf), max_size=60), width=st.integers(1, 30))
def test_a_sparkline_has_its_ends_where_the_values_have_theirs(values: list[float], width: int):
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    finite = [value for value in values if math.isfinite(value)]
    assert set(line) <= set(BARS + " ")
    if len(values) <= width and finite and max(finite) > min(finite):
        assert line[values.index(min(finite))] == BARS[0]
        assert line[values.index(max(finite))] == BARS[-1]
    assert bool(line.strip()) == bool(finite)


def test_time_left_follows_from_the_last_lines(tmp_path: Path):
    glance = now(begun(tmp_path / "run"))
    assert (glance.step, glance.steps) == (40, 100)
    assert glance.seconds_left == pytest.approx(60 * 0.2)
    assert "about 12 s left" in "\n".join(shown(glance))
    assert now(begun(tmp_path / "one", steps=1)).seconds_left is None
    assert now(begun(tmp_path / "over", state="finished")).seconds_left is None
    assert [duration(seconds) for seconds in (7, 200, 7500)] == ["7 s", "3 min 20 s", "2 h 05 min"]


def test_a_run_that_is_silent_says_so(tmp_path: Path):
    run = begun(tmp_path / "run")
    for name in ("run.json", "metrics.jsonl"):
        os.utime(run / name, (1e9, 1e9))
    assert "no news for" in "\n".join(shown(now(run), width=120))
    assert "no news for" not in "\n".join(shown(now(begun(tmp_path / "fresh")), width=120))


def test_everything_is_there_and_what_does_not_fit_is_left_out(tmp_path: Path):
    glance = now(write_full_run(tmp_path / "run"))
    text = "\n".join(shown(glance, height=200, width=240))
    for words in (
        "600 of 600", "coarse mel", "learning rate", "gradient norm", "frames per second", "mel loss", "restart 1: from step 400 back to 300",
        "skipped update at step 480", "batches were halved once", "attention on “a bright red kite ok”", "█", "● Training went back once",
        "Set optimiser.learning_rate to", "loss with other texts",
    ):  # fmt: skip
        assert words in text, words
    for height, width in ((24, 80), (40, 60), (50, 200)):
        assert len(shown(glance, height=height, width=width)) <= height


def test_what_happened_is_told_once(tmp_path: Path):
    before = now(begun(tmp_path / "a"))
    first = happened(None, before)
    assert first[0] == "a: running at step 40 of 100"
    assert "step 40 validated: mel loss 1.50, gate loss 0.100" in first
    assert happened(before, before) == []
    run = begun(tmp_path / "b", state="diverged", skipped=1)
    write_anomaly(run, 30)
    write_restart(run, 1, back_to=20, noticed=35, abandoned=[])
    lines = happened(before, now(run))
    assert "skipped the update of step 30: gradient decoder.gate.weight" in lines
    assert any(line.startswith("restart 1: from step 35 back to 20, divergence; optimiser.learning_rate") for line in lines)
    assert any(line.startswith("bad: Training is diverged") and "Lower optimiser.learning_rate" in line for line in lines)


def test_one_picture_of_a_real_run(trained: Path, tts: Tts):
    code, out, _ = tts("watch", trained, "--once")
    assert code == 0
    assert "6 of 6" in out
    assert "finished" in out
    assert "attention diagonality" in out
    assert "\x1b" not in out


def test_lines_where_there_is_no_terminal_and_an_end(trained: Path, tmp_path: Path, tts: Tts):
    code, out, _ = tts("watch", trained)
    assert code == 0
    assert re.match(r"\d\d:\d\d:\d\d voice: finished at step 6 of 6", out)
    assert "step 6 validated: mel loss" in out
    code, out, error = tts("watch", begun(tmp_path / "run", state="diverged"))
    assert code == 70
    assert "training diverged at step 40" in error
    code, _, error = tts("watch", tmp_path / "nothing")
    assert code == 65
    assert "is not a run folder" in error


def test_a_run_in_an_object_store_is_followed_without_its_checkpoints(bucket: "Bucket", tmp_path: Path, tts: Tts):
    from tts.storage import publish

    run = write_full_run(tmp_path / "run", steps=500)
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "step-00000500.pt").write_bytes(b"large")
    place = f"{bucket.uri}/runs/voice"
    publish(run, place)
    code, out, _ = tts("watch", place, "--once")
    assert code == 0
    assert "500 of 500" in out
    assert "restart 1" in out
    with watched(place) as copy:
        first = copy.look()
        assert copy.look() == first
        assert not (copy.folder / "checkpoints").exists()
        assert len(list((copy.folder / "snapshots").iterdir())) == 3
        (run / "anomalies" / "step-00000120.json").unlink()
        publish(run, place)
        assert copy.look() != first
        assert [path.name for path in (copy.folder / "anomalies").iterdir()] == ["step-00000480.json"]
    assert not copy.folder.exists()
    code, _, error = tts("watch", f"{bucket.uri}/nothing", "--once")
    assert code == 65
    assert "is not a run folder" in error


class Terminal:
    """`tts watch` in a terminal of 90 columns and 40 lines."""

    def __init__(self, run: Path) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 90, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path)}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        command = [sys.executable, "-m", "tts", "watch", str(run)]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True)
        os.close(theirs)
        self.seen = ""

    def read_until(self, words: str) -> None:
        while words not in self.seen:
            try:
                self.seen += os.read(self._ours, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                break
        assert words in self.seen, self.seen[-2000:]

    def end(self) -> int:
        try:
            while part := os.read(self._ours, 65536):
                self.seen += part.decode(errors="replace")
        except OSError:
            pass
        os.close(self._ours)
        return self.process.wait(60)


def test_the_view_follows_the_files_and_ends_with_the_run(tmp_path: Path):
    run = begun(tmp_path / "run")
    terminal = Terminal(run)
    terminal.read_until("40 of 100")
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(train(70, loss=0.4, seconds=14.0)) + "\n")
    terminal.read_until("70 of 100")
    state = json.loads((run / "run.json").read_text())
    (run / "new.json").write_text(json.dumps({**state, "state": "finished", "step": 100}))
    (run / "new.json").replace(run / "run.json")
    assert terminal.end() == 0
    assert "100 of 100" in terminal.seen
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l"), "the cursor is shown again"


def test_ctrl_c_leaves_a_clean_terminal(tmp_path: Path):
    terminal = Terminal(begun(tmp_path / "run"))
    terminal.read_until("40 of 100")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 130
    assert terminal.seen.rindex("\x1b[?25h") > terminal.seen.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "Traceback" not in terminal.seen
