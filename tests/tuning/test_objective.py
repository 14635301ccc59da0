import math

import pytest

from tts.config import ObjectiveTerm, TuningConfig
from tts.errors import UsageError
from tts.training.validation import VALIDATION_METRICS
from tts.tuning.objective import Objective, UnusableMetricError

TERMS = (ObjectiveTerm(metric="mel_loss", weight=2.0), ObjectiveTerm(metric="attention_diagonality", weight=0.5, direction="maximise"))


def test_is_the_weighted_sum_with_maximised_metrics_subtracted():
    assert Objective(TERMS).value({"mel_loss": 3.0, "attention_diagonality": 0.8, "gate_loss": 9.0}) == 2.0 * 3.0 - 0.5 * 0.8
    assert str(Objective(TERMS)) == "2 mel_loss - 0.5 attention_diagonality"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["mel_loss", "attention_diagonality"])
def test_a_metric_that_is_not_finite_gives_no_value(metric, bad):
    metrics = {"mel_loss": 0.1, "attention_diagonality": 0.9, metric: bad}

    with pytest.raises(UnusableMetricError, match=f"metric {metric} is {bad}"):
        Objective(TERMS).value(metrics)


def test_a_missing_metric_gives_no_value():
    with pytest.raises(UnusableMetricError, match="metric attention_diagonality is missing"):
        Objective(TERMS).value({"mel_loss": 0.1})


def test_a_sum_that_overflows_gives_no_value():
    terms = (ObjectiveTerm(metric="mel_loss", weight=1e300),)

    with pytest.raises(UnusableMetricError, match="the sum of mel_loss is inf"):
        Objective(terms).value({"mel_loss": 1e300})


def test_a_metric_that_does_not_matter_may_be_anything():
    assert Objective(TERMS).value({"mel_loss": 1.0, "attention_diagonality": 0.0, "gate_stop_error": math.inf}) == 2.0


def test_the_default_objective_is_measured_by_validation():
    Objective(TuningConfig().objective).check(VALIDATION_METRICS)


def test_an_unknown_metric_is_refused_with_the_nearest_known():
    objective = Objective((ObjectiveTerm(metric="val_mel_loss"),))

    with pytest.raises(UsageError, match=r"tuning\.objective: 'val_mel_loss' is not a validation metric; did you mean mel_loss\?"):
        objective.check(VALIDATION_METRICS)
