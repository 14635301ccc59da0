"""Progress: lines for files, bars for terminals, nothing for trials."""

import io
import logging

import pytest
from rich.console import Console

from tts import progress
from tts.progress import Bars, Lines, Silent, for_terminal, show


def test_lines_tell_place_and_figures(caplog):
    with caplog.at_level(logging.INFO, "tts.progress"), Lines(every=0.0).task("training", 4, done=2) as task:
        task.advance(loss=1.23456)
        task.advance(loss=0.5, note="ok")
    first, last = [record.getMessage() for record in caplog.records]
    assert first.startswith("training 3/4 ")
    assert first.endswith("loss 1.235")
    assert last.startswith("training 4/4 ")
    assert last.endswith("0 s left  loss 0.5  note ok")


def test_lines_are_rare(caplog):
    with caplog.at_level(logging.INFO, "tts.progress"), Lines(every=3600.0).task("training", 1000) as task:
        for _ in range(1000):
            task.advance()
    assert len(caplog.records) == 1, "only the one at the end"


def test_bars_show_figures(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda **_: Console(file=terminal, force_terminal=True, width=150))
    with Bars().task("training", 10, done=3) as task:
        task.advance(2, loss=1.5)
    assert "training" in terminal.getvalue()
    assert "5/10" in terminal.getvalue()
    assert "loss 1.5" in terminal.getvalue()


def test_silence(capsys, caplog):
    with Silent().task("training", 10) as task:
        task.advance(loss=1.0)
    assert capsys.readouterr() == ("", "")
    assert caplog.records == []


@pytest.mark.parametrize(("terminal", "kind"), [(True, Bars), (False, Lines)])
def test_the_terminal_decides(monkeypatch, terminal, kind):
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert isinstance(for_terminal(), kind)


def test_figures_are_short():
    assert show({"loss": 1234.56789, "step": 3, "note": "x"}) == "loss 1,235  step 3  note x"
