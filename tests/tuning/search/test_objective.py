import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import ModelConfig, ObjectiveTerm, TuningConfig
from tts.errors import UsageError
from tts.training.validation import RECOGNISER_METRICS, VALIDATION_METRICS, validation_metrics
from tts.tuning.search.objective import Objective, UnusableMetricError

TERMS = (ObjectiveTerm(metric="mel_loss", weight=2.0), ObjectiveTerm(metric="attention_diagonality", weight=0.5, direction="maximise"))
TWO = (
    ObjectiveTerm(metric="gate_loss", weight=3.0, scale=4.0, objective="stopping"),
    ObjectiveTerm(metric="mel_loss", objective="sound"),
    ObjectiveTerm(metric="gate_accuracy", direction="maximise", scale=0.5, objective="stopping"),
)


def test_is_the_weighted_sum_with_maximised_metrics_subtracted():
    objective = Objective(TERMS)

    assert objective.values({"mel_loss": 3.0, "attention_diagonality": 0.8, "gate_loss": 9.0}) == (2.0 * 3.0 - 0.5 * 0.8,)
    assert str(objective) == "2 mel_loss - 0.5 attention_diagonality"
    assert (objective.names, objective.several) == (("loss",), False)


def test_each_name_has_a_sum_of_its_own_with_metrics_divided_by_their_scales():
    objective = Objective(TWO)

    assert objective.values({"mel_loss": 7.0, "gate_loss": 2.0, "gate_accuracy": 0.75}) == (3.0 * 2.0 / 4.0 - 0.75 / 0.5, 7.0)
    assert (objective.names, objective.several) == (("stopping", "sound"), True)
    assert objective.metrics == ("gate_loss", "mel_loss", "gate_accuracy")
    assert str(objective) == "stopping: 3 gate_loss / 4 - 1 gate_accuracy / 0.5; sound: 1 mel_loss"


@given(weights=st.lists(st.floats(0.01, 100), min_size=2, max_size=5), left_out=st.data())
def test_weights_are_never_rescaled(weights, left_out):
    """What a term adds does not depend on which other terms there are."""
    terms = tuple(ObjectiveTerm(metric=f"m{place}", weight=weight) for place, weight in enumerate(weights))
    metrics = {term.metric: 1.0 for term in terms}
    gone = left_out.draw(st.integers(0, len(terms) - 1))

    (whole,) = Objective(terms).values(metrics)
    (rest,) = Objective(terms[:gone] + terms[gone + 1 :]).values(metrics)

    assert whole - rest == pytest.approx(weights[gone])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["mel_loss", "gate_loss", "gate_accuracy"])
def test_a_metric_that_is_not_finite_gives_no_value_in_any_objective(metric, bad):
    metrics = {"mel_loss": 0.1, "gate_loss": 0.2, "gate_accuracy": 0.9, metric: bad}

    with pytest.raises(UnusableMetricError, match=f"^metric {metric} is {bad} at step 40$"):
        Objective(TWO).values(metrics, 40)


def test_a_missing_metric_gives_no_value():
    with pytest.raises(UnusableMetricError, match=r"^metric attention_diagonality is missing at step 40$"):
        Objective(TERMS).values({"mel_loss": 0.1}, 40)
    with pytest.raises(UnusableMetricError, match=r"^metric attention_diagonality is missing$"):
        Objective(TERMS).values({"mel_loss": 0.1})


def test_a_sum_that_overflows_gives_no_value():
    terms = (ObjectiveTerm(metric="mel_loss", weight=1e300),)

    with pytest.raises(UnusableMetricError, match="the sum of mel_loss is inf"):
        Objective(terms).values({"mel_loss": 1e300})


def test_a_metric_that_does_not_matter_may_be_anything():
    assert Objective(TERMS).values({"mel_loss": 1.0, "attention_diagonality": 0.0, "gate_stop_error": math.inf}) == (2.0,)


def test_the_default_objective_is_measured_by_validation():
    Objective(TuningConfig().objective).check(VALIDATION_METRICS)


def test_an_unknown_metric_is_refused_with_the_nearest_known():
    objective = Objective((ObjectiveTerm(metric="val_mel_loss"),))

    with pytest.raises(UsageError, match=r"tuning\.objective: 'val_mel_loss' is not a validation metric; did you mean mel_loss\?"):
        objective.check(VALIDATION_METRICS)


def test_a_metric_of_a_network_without_recogniser_is_refused_with_the_knob_that_gives_it_one():
    objective = Objective((ObjectiveTerm(metric="recogniser_error_rate"),))
    objective.check(validation_metrics(ModelConfig(recogniser=8)), RECOGNISER_METRICS)
    with pytest.raises(UsageError, match=r"'recogniser_error_rate' is not measured while model\.recogniser is 0; set it, or leave the metric out"):
        objective.check(validation_metrics(ModelConfig()), RECOGNISER_METRICS)
