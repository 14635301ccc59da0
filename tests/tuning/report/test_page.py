"""study.html: every trial and failure is on it, and it needs no other file."""

import re

import pytest
from optuna.trial import TrialState

from tests.diagnostics.html_page import ReadPage
from tests.tuning.told import BEGIN, FOUR, tell
from tts.diagnostics.page import render
from tts.tuning.report.knob_pictures import Scale
from tts.tuning.report.page import LOGS, _bars, study_page
from tts.tuning.report.records import record
from tts.tuning.report.results import write_tables

KNOBS = 3


def page_of(study, folder) -> ReadPage:
    results = record(study)
    write_tables(folder, results)
    document = render(study_page(folder, results))
    page = ReadPage(document)
    page.check()
    page.document = document
    return page


def test_every_trial_and_every_failure_is_shown(make_study, tmp_path):
    study = make_study(trials=20)
    tell(study, FOUR + FOUR, attributes={"interruptions": ["its worker died", "stopped by SIGTERM"]})
    page = page_of(study, tmp_path)

    assert page.pictures == {"study": 3, "knobs": 1 + KNOBS, "timeline": 1, "failures": 0}
    assert [row[0] for row in page.tables["study"][KNOBS:]] == ["5", "2", "1", "6", "0", "3", "4", "7", "8"], "best first"
    failed = [row for row in page.tables["failures"] if row[1].startswith("metric")]
    assert failed == [[number, "metric mel_loss is nan at step 2", "<b>last</b>"] for number in ("4", "8")]
    assert page.document.count("<pre>first\n&lt;b&gt;last&lt;/b&gt;</pre>") == 2
    interrupted = [row for row in page.tables["failures"] if row not in failed]
    assert [row[0] for row in interrupted] == [str(number) for number in range(1, 9)]
    assert {tuple(row[2:]) for row in interrupted} == {("2", "its worker died; stopped by SIGTERM")}


def test_the_timeline_has_a_row_for_each_worker_and_a_number_on_each_bar(make_study, tmp_path):
    study = make_study(trials=20)
    tell(study, FOUR, workers=2)
    document = page_of(study, tmp_path).document

    timeline = document[document.index('id="timeline"') : document.index('id="failures"')]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", timeline)
    assert {"host-0", "host-1"} <= set(texts)
    assert {"1", "2", "3", "4"} <= set(texts)
    assert "seconds since the first trial began" in texts


def test_an_interrupted_attempt_covers_no_other_trial(make_study, tmp_path):
    study = make_study(trials=20)
    begin = BEGIN.timestamp()
    tell(study, (TrialState.COMPLETE,), attributes={"spans": [[begin, begin + 50]], "worker": "host-1"})
    tell(study, (TrialState.PRUNED,), attributes={"spans": [[begin + 5, begin + 9], [begin + 60, begin + 70]], "worker": "host-1"})
    tell(
        study,
        (TrialState.PRUNED,),
        attributes={"spans": [[begin + 6, begin + 8], [begin + 20, begin + 22], [begin + 80, begin + 90]], "worker": "host-2"},
    )

    bars, rows = _bars(record(study).own)

    assert rows == ["host-1", "host-2", "interrupted", "interrupted"]
    assert sorted((bar.trial.number, bar.begin - begin, bar.row) for bar in bars) == [
        (1, 0, 0),
        (2, 5, 2),
        (2, 60, 0),
        (3, 6, 3),
        (3, 20, 2),
        (3, 80, 1),
    ]


@pytest.mark.parametrize(("state", "words"), [(TrialState.FAIL, "No trial completed"), (TrialState.PRUNED, "No trial completed")])
def test_a_study_in_which_nothing_completed_says_so(make_study, tmp_path, state, words):
    study = make_study(trials=20)
    tell(study, (state,) * 5)
    page = page_of(study, tmp_path)

    assert words in page.sections["study"]
    assert words in page.sections["knobs"]
    assert page.pictures["knobs"] == 1
    assert not (tmp_path / "best.yaml").exists()


def test_a_study_that_has_not_begun_has_a_page(make_study, tmp_path):
    page = page_of(make_study(), tmp_path)

    assert page.absent == {"knobs": True, "timeline": True, "failures": True}
    assert "1 waiting" in page.sections["study"]


def test_several_objectives_show_the_set_and_a_slice_of_each(make_study, tmp_path):
    study = make_study(
        trials=20, objective=[{"metric": "mel_loss", "objective": "loss"}, {"metric": "gate_loss", "objective": "gate"}], pruner="none"
    )
    tell(study, (TrialState.COMPLETE,) * 12)
    results = record(study)
    page = page_of(study, tmp_path)

    assert page.pictures["study"] == 2, "Pareto set and importances"
    assert page.pictures["knobs"] == 1 + 2 * KNOBS
    front = page.tables["study"][KNOBS : KNOBS + len(results.pareto)]
    assert sorted(int(row[0]) for row in front) == results.pareto
    assert "loss = mel_loss; gate = gate_loss" in page.sections["study"]


def test_a_conditional_knob_is_left_out_where_it_was_not_searched(make_study, tmp_path):
    study = make_study(trials=20)
    tell(study, (TrialState.COMPLETE,) * 8, without="optimiser.warmup_steps")
    document = page_of(study, tmp_path).document

    slices = {knob: document[document.index(f'aria-label="objective over {knob}"') :].split("</svg>")[0] for knob in study.space}
    dots = {knob: svg.split("PathCollection_1")[1].split("PathCollection_2")[0].count("<use ") for knob, svg in slices.items()}
    assert dots == {"optimiser.learning_rate": 8, "optimiser.warmup_steps": 4, "model.prenet_dropout": 8}


def test_hundreds_of_trials_stay_small(make_study, tmp_path):
    study = make_study(trials=500)
    results = record(study)
    tell(study, FOUR)
    one = record(study).trials
    many = [trial.model_copy(update={"number": number}) for number, trial in enumerate(one * 100)]
    write_tables(tmp_path, results := results.model_copy(update={"trials": many, "counts": {"complete": 200, "fail": 100}}))
    document = render(study_page(tmp_path, results))

    assert len(document) < 5_000_000
    assert document.count("<pre>") == LOGS
    assert "logs of the other failed trials are in study.json" in document


def test_scales_of_knobs():
    numbers = Scale([0.001, 1.0, None])
    assert numbers.log
    assert [round(numbers.place(value), 3) for value in (0.001, 1.0)] == [0, 1]
    assert numbers.place(0.0316227766) == pytest.approx(0.5)
    assert [mark for _, mark in numbers.marks] == ["0.001", "0.0316", "1"]
    names = Scale(["b", "a", "b"])
    assert [names.place(name) for name in ("a", "b")] == [0.25, 0.75]
    assert Scale([3, 3]).place(3) == 0.5
    assert Scale([None]).marks == []
