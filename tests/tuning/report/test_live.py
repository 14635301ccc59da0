"""The live view: what it says of a study, on a terminal and elsewhere."""

import io
import logging
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

import pytest
from optuna.trial import TrialState
from rich.console import Console
from rich.logging import RichHandler

from tests.tuning.told import FOUR, tell
from tts.config.load import to_json
from tts.progress import Lines, Silent
from tts.tuning.report.live import drawing, live, shown
from tts.tuning.report.snapshot import Snapshot, happened, snapshot, summary

C, P, F, R = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING


@pytest.fixture
def study(make_study):
    study = make_study(trials=20, gpu_hours=1)
    tell(study, (*FOUR, R, R))
    return study


def text_of(now: Snapshot, *, width: int = 150, height: int = 40, events: tuple[str, ...] = ()) -> str:
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(drawing(now, seconds=75, events=events, height=height))
    return console.export_text()


def test_the_view_says_what_the_study_holds(study):
    text = text_of(snapshot(study, workers=2), events=("12:00:00  trial 4 failed: metric mel_loss is nan",))

    assert "study voices" in text
    assert str(study.url) in text
    assert re.search(r"trials .* 4 of 20", text)
    assert re.search(r"gpu_hours .* 0\.0133 of 1", text), "six trials of eight seconds"
    assert "2 complete   1 pruned   1 fail   2 running   1 waiting   2 workers alive here, 2 with a trial" in text
    assert "best 1.3  trial 2  learning_rate 0.00153" in text
    rows = [line.split() for line in text.splitlines() if "6/6" in line]
    assert [(row[1], row[2], row[3]) for row in rows] == [("5", "host-1", "6/6"), ("6", "host-0", "6/6")]
    assert "trial 4 failed: metric mel_loss is nan" in text
    assert "1 min 15 s, about 1 min 04 s left" in text, "16 trials of 8 s, two at a time"


@pytest.mark.parametrize("height", [18, 24, 40])
def test_it_fits_the_terminal(study, height):
    tell(study, (R,) * 20)
    events = tuple(f"12:00:00  event {number}" for number in range(6))
    text = text_of(snapshot(study, workers=2), width=80, height=height, events=events)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert len(text.splitlines()) < height, "the cursor needs a line"
    shown = len(re.findall(r"6/6", text))
    assert f"{22 - shown} more" in text
    assert "event 5" in text, "the last one"
    assert "left ─" in text


def test_a_password_is_not_shown(study, make_study, postgres_url):
    other = make_study("other", url=postgres_url.replace("@", ":s3cret@", 1) if ":s3cret" not in postgres_url else postgres_url)

    assert "s3cret" not in text_of(snapshot(other))


def test_what_happened_between_two_looks(study):
    before = snapshot(study, workers=2)
    tell(study, (C, P, F), spread=4)
    trial = study.trials.trials[5]
    study.storage.set_trial_user_attr(trial._trial_id, "interruptions", ["its worker died"])
    study.storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
    now = snapshot(study, workers=1)

    events = happened(before, now)

    assert [event.text for event in events] == [
        "trial 5 was interrupted at step 6: its worker died",
        "trial 7 complete: 1.9",
        "trial 8 pruned at step 2",
        "trial 9 failed: metric mel_loss is nan at step 2",
        "1 of 2 workers ended",
    ]
    assert [event.notable for event in events] == [True, False, False, True, True]
    assert happened(None, now) == []
    assert happened(now, now) == []


def test_a_new_best_is_told(study):
    before = snapshot(study)
    tell(study, (C,) * 5)

    after = snapshot(study)
    told = [event.text for event in happened(before, after) if event.notable]

    assert told == [f"trial {after.study.best.number} complete: {after.study.best.value:g}, the best so far"]


def test_time_left_ends_with_the_first_budget(make_study):
    study = make_study(trials=1000, hours=0.01)
    assert snapshot(study).seconds_left is None
    tell(study, (C,) * 2)
    assert snapshot(study).seconds_left == pytest.approx(36 - 18, abs=8.1)
    over = make_study("over", trials=2)
    tell(over, (C,) * 2)
    assert snapshot(over).seconds_left == 0


def test_elsewhere_lines_tell_what_is_notable(study, caplog):
    with caplog.at_level(logging.INFO, "tts.tuning.report.live"), shown(Lines(every=0), snapshot(study, workers=2)) as view:
        view.update(snapshot(study, workers=2))
        tell(study, (C, F))
        view.update(snapshot(study, workers=2))
        view.update(snapshot(study, workers=2))

    said = [entry.getMessage() for entry in caplog.records]
    assert said[0].startswith(
        "study voices: 4 of 20 trials finished (2 complete, 1 pruned, 1 fail, 2 running, 1 waiting); best 1.3 (trial 2); 2 workers"
    )
    assert said[1] == "study voices: trial 8 failed: metric mel_loss is nan at step 2"
    assert said[2].startswith("study voices: 6 of 20 trials finished")
    assert len(said) == 3, "nothing new is not said again"
    assert summary(snapshot(study)).startswith("6 of 20 trials finished")


def test_any_other_progress_moves_on_by_finished_trials(study):
    seen: list[tuple[int, dict[str, object]]] = []

    class Counting(Silent):
        def task(self, title, total, done=0):
            seen.append((done, {"total": total}))
            return super().task(title, total, done)

    with shown(Counting(), snapshot(study)) as view:
        view.update(snapshot(study))
    assert seen == [(4, {"total": 20})]


def test_log_lines_go_above_the_view_and_handlers_come_back(study):
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=120, height=40)
    handler = RichHandler(console=Console(file=io.StringIO()), show_path=False)
    before = handler.console
    logging.getLogger().addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt), live(console) as view:
            view.update(snapshot(study, workers=2))
            logging.getLogger("tts").warning("worker 0 was killed by SIGKILL")
            raise KeyboardInterrupt
    finally:
        logging.getLogger().removeHandler(handler)
    assert "worker 0 was killed by SIGKILL" in plain(terminal.getvalue())
    assert handler.console is before
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l"), "the cursor is back"


def test_a_terminal_shows_the_study_and_is_sane_after_ctrl_c(features, base, tmp_path):
    """The real program on a pseudo-terminal, with a worker that trains."""
    (tmp_path / "config.json").write_text(to_json(base))
    # Long enough that Ctrl-C comes in its middle.
    knobs = ["--config", str(tmp_path / "config.json"), "--tuning.trials", "200", "--tracking.backend", "none"]
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", "OMP_NUM_THREADS": "1"}
    environment.pop("NO_COLOR", None)
    argv = [sys.executable, "-m", "tts.cli", "tune", str(features), str(tmp_path / "study"), *knobs]
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True)
    try:
        screen = _read(ours, lambda text: re.search(r"[1-9]\d* complete", plain(text)) is not None)
        assert "study tacotron2" in plain(screen)
        assert "1 worker alive here" in plain(screen)
        process.send_signal(signal.SIGINT)
        screen += _read(ours, lambda text: "\x1b[?25h" in text or process.poll() is not None)
        end = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < end:
            screen += _read(ours, lambda _: True, seconds=1)
        assert process.wait(1) == 130
        assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l"), "the cursor is back"
        assert termios.tcgetattr(theirs) == before
        assert "Traceback" not in screen
        assert "the same command goes on" in plain(screen)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def plain(text: str) -> str:
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _read(terminal: int, enough, seconds: float = 100) -> str:
    """What the program wrote until it is enough, in all, at the latest after so many seconds."""
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end:
        if select.select([terminal], [], [], 0.2)[0]:
            text += os.read(terminal, 65536).decode(errors="replace")
        if enough(text):
            return text
    return text
