"""Stages in a row: what is done is skipped, what changed is done again."""

import shutil
from pathlib import Path

import pytest

from tts import chain
from tts.chain import Chain, Stage, describe
from tts.config.load import override
from tts.errors import DataError, UsageError
from tts.progress import Silent
from tts.tracking import NoTracker


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_an_evaluation_is_made_once(run, features, tiny, tmp_path):
    out = tmp_path / "evaluation"

    def evaluate(**overrides: object) -> Stage:
        return chain.evaluate(run, features, out, override(tiny, overrides), study=None, progress=Silent())

    first = evaluate()
    assert not first.done_before
    assert set(first.figures) >= {"passed", "mel_cepstral_distortion"}
    written = (out / "report.html").stat().st_mtime_ns
    again = evaluate()
    assert again.done_before
    assert again.figures == pytest.approx(first.figures, nan_ok=True)
    assert (out / "report.html").stat().st_mtime_ns == written
    assert not evaluate(**{"evaluation.sentences": 1}).done_before, "other sentences are another evaluation"
    (run / "run.json").write_text((run / "run.json").read_text() + "\n")
    assert not evaluate(**{"evaluation.sentences": 1}).done_before, "another run is another evaluation"


def test_how_a_voice_was_made_is_not_changed_by_judging_it(run, features, tiny, tmp_path):
    other = override(tiny, {"model.prenet": 99, "synthesis.seed": 5})
    stage = chain.evaluate(run, features, tmp_path / "evaluation", other, study=None, progress=Silent())
    assert stage.figures["passed"] in (0.0, 1.0)


def test_a_diagnosis_is_made_once(run, tmp_path):
    first = chain.diagnose(run, tmp_path / "diagnostics")
    again = chain.diagnose(run, tmp_path / "diagnostics")
    assert (first.done_before, again.done_before) == (False, True)
    assert again.figures == pytest.approx(first.figures, nan_ok=True)


def test_a_registration_is_made_once(run, features, tiny, tmp_path):
    chain.evaluate(run, features, tmp_path / "evaluation", tiny, study=None, progress=Silent())

    def register() -> Stage:
        return chain.register(run, tmp_path / "evaluation", tmp_path / "registration", tiny, tracker=NoTracker())

    first = register()
    assert (first.done_before, first.figures["champion"]) == (False, 0.0)
    assert "tracking.backend is none" in first.note
    assert (tmp_path / "registration" / "registration.json").is_file()
    assert register().done_before


def test_a_stage_without_the_one_before_it(tmp_path):
    with pytest.raises(UsageError, match=r"run\.json does not exist; run the stage that makes it first"):
        chain.diagnose(tmp_path / "run", tmp_path / "diagnostics")


def test_a_chain_is_finished_for_its_corpus_and_configuration(corpus, tiny, tmp_path):
    out = tmp_path / "out"
    for path in (Chain(out).report, out / "run" / "run.json", out / "registration" / "registration.json"):
        path.parent.mkdir(parents=True)
        path.write_text("")
    assert not chain.finished(corpus, out, tiny)
    chain.mark_finished(corpus, out, tiny)
    assert chain.finished(corpus, out, tiny)
    assert not chain.finished(corpus, out, override(tiny, {"training.steps": 7}))
    other = tmp_path / "corpus"
    shutil.copytree(corpus, other)
    assert chain.finished(other, out, tiny), "the same recordings elsewhere"
    next(other.glob("wavs/*.wav")).write_bytes(b"other")
    assert not chain.finished(other, out, tiny)
    Chain(out).report.unlink()
    assert not chain.finished(corpus, out, tiny)
    with pytest.raises(DataError, match="does not exist"):
        chain.finished(tmp_path / "missing", out, tiny)


def test_a_stage_in_one_line():
    stage = Stage("train", Path("run"), done_before=True, figures={"loss": 0.123456789}, note="x")
    assert describe(stage) == "train: was done before (run): loss 0.123457 x"
