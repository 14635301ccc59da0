from tests.chaos.plan import SHORT
from tests.chaos.show import show
from tts.progress import Silent


def test_a_study_survives_kills(tmp_path):
    """A short performance of `make chaos`: SQLite, no tracking, a few kills."""
    verdict = show(SHORT, tmp_path, Silent())

    assert verdict.wrong == ()
    assert (verdict.figures["study_trials_finished"], verdict.figures["study_kills"]) == (3, 2)
