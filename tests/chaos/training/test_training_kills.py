from tests.chaos.training.show import SHORT, show
from tts.progress import Silent


def test_runs_that_are_killed_end_as_those_that_nobody_disturbed(tmp_path):
    """A short performance of `make chaos`: a few kills."""
    verdict = show(SHORT, tmp_path, Silent())

    assert verdict.wrong == ()
    assert (verdict.figures["training_kills"], verdict.figures["training_resumes_not_exact"]) == (SHORT.kills, 0)
