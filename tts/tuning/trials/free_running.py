"""Names of what a trial is measured by when it speaks on its own; how, is in spoken.py, which loads torch.

Validation is teacher-forced: each frame follows a recorded one, so a voice that cannot speak alone may look well there. An objective that
names one of these has `tuning.free_running_utterances` held-out texts spoken at each validation.
"""

from tts.config import Config

FREE_RUNNING_METRICS = ("free_diagonality", "free_coverage", "free_stopped_share", "free_duration_error", "free_mcd")
"""Means over the utterances: finite, or NaN where one of them was not to be measured, its mel or its attention not being finite.

free_diagonality: share of attention near the diagonal, times the shorter over the longer of spoken and recorded duration: who breaks off
after one step has nothing but a diagonal, and gets next to nothing for it. 1 is best.
free_coverage: share of symbols that some step attended. 1 is best.
free_stopped_share: share of utterances that the gate ended before LONGEST. 1 is best, also for a voice that breaks off at once: weigh it
beside free_duration_error.
free_duration_error: distance between spoken and recorded duration, as a share of the recorded one, at most LONGEST - 1. 0 is best.
free_mcd: mel-cepstral distortion against the recording along the best warping, in dB. 0 is best.
"""

LONGEST = 2.0
"""An utterance that has spoken for so many times its recording is cut off: it bounds what a validation costs."""


def is_free_running(config: Config) -> bool:
    """Whether the objective names a free-running metric."""
    return any(term.metric in FREE_RUNNING_METRICS for term in config.tuning.objective)
