"""Optuna's samplers, made to see the whole study, cope with conditions, and repeat nothing."""

import copy
from collections.abc import Container, Sequence
from statistics import median
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, QMCSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import override

from tts.config import TuningConfig
from tts.tuning.search.objective import Objective
from tts.tuning.search.space import Space

OUTLIER = 4.0
"""Times the distance from the best value to the median: what is worse than the median by more tells the Gaussian process no more."""
REDRAWS = 20
"""nsgaii copies its parents now and then; it is asked again so many times before a trial may repeat another."""


def tpe(config: TuningConfig, seed: int) -> TPESampler:
    """Tree-structured Parzen estimator: multivariate, grouped where some knobs are under a condition."""
    # For several objectives Optuna models each knob by itself, which copes with conditions as it is.
    one = not Objective(config.objective).several
    group = one and bool(config.conditions)
    return TPESampler(seed=seed, n_startup_trials=config.startup_trials, multivariate=one, group=group, constant_liar=True)


class WholeStudy(BaseSampler):
    """Lets a sampler see all trials of the study.

    Optuna shows it those of the trial's own Hyperband bracket alone, and that only once the pruner has judged a trial in this process: a study of
    30 trials would hardly leave the random start in any bracket, and would go on differently when it is taken up again.
    """

    def __init__(self, inner: BaseSampler) -> None:
        self.inner = inner

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self.inner.infer_relative_search_space(_whole(study), trial)

    @override
    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        return self.inner.sample_relative(_whole(study), trial, search_space)

    @override
    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self.inner.sample_independent(_whole(study), trial, param_name, param_distribution)

    @override
    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(_whole(study), trial)

    @override
    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.inner.after_trial(_whole(study), trial, state, values)

    @override
    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def _whole(study: optuna.Study) -> optuna.Study:
    whole: optuna.Study = getattr(study, "_study", study) if hasattr(type(study), "_VALID_ATTRS") else study
    return whole


class Sobol(QMCSampler):
    """Sobol's sequence, scrambled once for the study, entered at the trial's number.

    Optuna counts draws instead, so that a trial that is taken up again would skip a point.
    All knobs have their dimension from the first trial on, the conditional ones too, which a trial then uses or not.
    """

    def __init__(self, seed: int, trial: int, space: Space) -> None:
        super().__init__(qmc_type="sobol", scramble=True, seed=seed, warn_asynchronous_seeding=False, warn_independent_sampling=False)
        self._trial = trial
        self._space = _wide(space)

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._space

    @override
    def _find_sample_id(self, study: optuna.Study, search_space: Space) -> int:
        return self._trial


class GaussianProcess(GPSampler):
    """A Gaussian process over the knobs that every trial has, which learns from pruned trials, too; TPE draws knobs under a condition.

    Optuna's takes completed trials alone. Where most are pruned it would draw again and again where trials have been ended early.
    """

    def __init__(self, config: TuningConfig, seed: int, steady: Space) -> None:
        super().__init__(seed=seed, n_startup_trials=config.startup_trials, independent_sampler=tpe(config, seed), warn_independent_sampling=False)
        self._steady = _wide(steady)

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._steady

    @override
    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        return super().sample_relative(_AsIfCompleted(study), trial, search_space)


class _AsIfCompleted(optuna.Study):
    """A study whose pruned trials have a value, too."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)  # noqa: SLF001  # as Optuna's own views of a study do

    @override
    def _get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, None, use_cache)
        completed = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        judged = [as_if_completed(trial, completed) if trial.state == TrialState.PRUNED and completed else trial for trial in trials]
        if completed and len(self.directions) == 1:
            judged = bounded(judged, completed)
        return [trial for trial in judged if states is None or trial.state in states]


def bounded(trials: Sequence[FrozenTrial], completed: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials, none with a value further above the median of those that completed than OUTLIER times the distance of the best below it.

    The model standardises values: beside one trial that blew up all others would look the same.
    """
    values = [trial.values[0] for trial in completed]
    middle, best = median(values), min(values)
    if middle == best:
        return list(trials)
    bound = middle + OUTLIER * (middle - best)
    return [_with_value(trial, bound) if trial.state == TrialState.COMPLETE and trial.values[0] > bound else trial for trial in trials]


def _with_value(trial: FrozenTrial, value: float) -> FrozenTrial:
    changed = copy.copy(trial)
    changed.values = [value]
    return changed


def as_if_completed(pruned: FrozenTrial, completed: Sequence[FrozenTrial]) -> FrozenTrial:
    """A copy with a value: the worst to which those came that stood better at its last report, and as far behind them as it was then.

    Without the distance all pruned trials would be equal where little has completed, and the model would see a plain. One that stood better than all
    that completed gets the value of the best of them at that report, one that cannot be compared the worst of all.
    """
    step = pruned.last_step
    stood = sorted((trial.intermediate_values[step], trial.values[0]) for trial in completed if step in trial.intermediate_values)
    judged = copy.copy(pruned)
    judged.state = TrialState.COMPLETE
    if step is None or not stood:
        judged.values = [max(trial.values[0] for trial in completed)]
        return judged
    better = [(reported, final) for reported, final in stood if reported <= pruned.intermediate_values[step]] or stood[:1]
    judged.values = [max(final for _, final in better) + max(0.0, pruned.intermediate_values[step] - better[-1][0])]
    return judged


class CmaEs(CmaEsSampler):
    """CMA-ES over the numbers that every trial has; TPE draws the others: choices among values, and knobs under a condition.

    The space is fixed beforehand. Optuna takes what all finished trials have in common, and draws at random for good as soon as that shrinks.
    """

    def __init__(self, config: TuningConfig, seed: int, steady: Space) -> None:
        super().__init__(
            seed=seed,
            n_startup_trials=config.startup_trials,
            independent_sampler=tpe(config, seed),
            warn_independent_sampling=False,
            consider_pruned_trials=True,  # a pruned trial counts with its last report: worse than those that went on
            with_margin=any(getattr(spread, "step", None) for spread in steady.values()),  # keeps whole numbers from freezing
        )
        self._steady = _wide(steady)

    @override
    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> Space:
        return self._steady


class NsgaII(NSGAIISampler):
    """NSGA-II that does not repeat a trial: the same values train the same network once more."""

    @override
    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        known = [other.params for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        for _ in range(REDRAWS):
            child = super().sample_relative(study, trial, search_space)
            # A knob that mutates is left out and drawn at random afterwards.
            if child.keys() != search_space.keys() or not any(child.items() <= params.items() for params in known):
                break
        return child


def _wide(space: Space) -> Space:
    """Without the knobs that have a single value: Optuna takes that itself."""
    return {name: spread for name, spread in sorted(space.items()) if not spread.single()}
