"""Studies with trials that ended as told, without training any."""

import math
from datetime import datetime, timedelta

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

from tts.tuning.study import Study

BEGIN = datetime(2026, 3, 1, 12)  # noqa: DTZ001  # as Optuna has its times
FOUR = (TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def tell(
    study: Study,
    states: tuple[TrialState, ...] = FOUR,
    *,
    attributes: dict[str, object] | None = None,
    spread: int = 0,
    workers: int = 2,
    without: str = "",
) -> None:
    """Adds trials; a trial's place in the study says everything about it. Those at odd places have no value for the knob `without`."""
    objectives = len(study.objective.names)
    for place, state in enumerate(states, start=len(study.trials.trials)):
        value = 1 + ((place * 7 + spread) % 11) / 10
        reports = {2: value + 1, 4: value + 0.5, 6: value}
        if state == TrialState.PRUNED:
            reports = {2: value + 1}
        if state == TrialState.FAIL:
            reports = {2: math.nan}
        begin = BEGIN.timestamp() + 10 * (place // workers)
        about: dict[str, object] = {
            "seconds": 8.0,
            "spans": [[begin, begin + 8]],
            "worker": f"host-{place % workers}",
            "metrics": {"step": 6, "mel_loss": value, "gate_loss": 0.5, "attention_diagonality": 0.25, "gate_stop_error": math.inf},
        }
        if state == TrialState.FAIL:
            about |= {"reason": "metric mel_loss is nan at step 2", "log": "first\n<b>last</b>"}
        space = {name: distribution for name, distribution in study.space.items() if name != without or place % 2 == 0}
        trial = create_trial(
            state=state,
            values=[value, *((place * 3 + other) % 7 / 10 for other in range(1, objectives))] if state == TrialState.COMPLETE else None,
            params={name: _value(distribution, place) for name, distribution in space.items()},
            distributions=space,
            user_attrs={**about, **(attributes or {})},
            intermediate_values=reports if objectives == 1 else {},
        )
        trial.datetime_start = BEGIN + timedelta(seconds=10 * (place // workers))
        trial.datetime_complete = trial.datetime_start + timedelta(seconds=8) if state.is_finished() else None
        study.trials.add_trial(trial)


def _value(distribution: BaseDistribution, place: int) -> object:
    """Spread evenly over the range, on its grid."""
    choices = getattr(distribution, "choices", None)
    if choices:
        return choices[place % len(choices)]
    low, high = distribution.low, distribution.high
    share = (place * 0.37) % 1
    value = low * (high / low) ** share if distribution.log else low + (high - low) * share
    if distribution.step:
        value = low + round((value - low) / distribution.step) * distribution.step
    return int(value) if isinstance(low, int) else float(value)
