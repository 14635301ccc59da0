"""The Experiment: our space and budget in Katib's words (kubeflow.org/v1beta1, read in Katib 0.19), or a refusal where it has none.

Katib lacks conditions, several objectives, hours and plateaus, checkpoints to go on from, and most pruners. Some of its algorithms draw from
another space than the one that they are given: what each draws faithfully is in ALGORITHMS.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tts.config import Config, TuningConfig
from tts.config.load import flatten
from tts.config.presets import PRESETS
from tts.config.resolve import PREPARED
from tts.errors import UsageError
from tts.storage.cache import VARIABLE as CACHE
from tts.tuning.katib.trial import OBJECTIVE
from tts.tuning.kubernetes.job import QUEUE, STORAGE, build
from tts.tuning.kubernetes.template import read_template, worker_of
from tts.tuning.launch import Task
from tts.tuning.search.objective import Objective
from tts.tuning.search.space import Space, default_params, search_space

RUN = "/tmp/run"  # noqa: S108  # in the pod, an emptyDir
STARTUP_TRIALS = 5
"""Finished trials before the median is used, as Optuna's median pruner has it."""
FINISHED = 'status.conditions.#(type=="{}")#|#(status=="True")#'


@dataclass(frozen=True)
class Algorithm:
    """One of Katib's, and what it cannot draw."""

    name: str
    log: bool = True
    """Draws over orders of magnitude where it is told to."""
    log_int: bool = True
    """... whole numbers, too."""
    step: bool = True
    """Steps begin at the lowest value, not at zero."""


ALGORITHMS = {
    "tpe": Algorithm("multivariate-tpe"),  # Optuna's, as ours
    "random": Algorithm("random", log_int=False, step=False),  # hyperopt
    "cmaes": Algorithm("cmaes", log=False),  # goptuna does not read the distribution
    "qmc": Algorithm("sobol", log=False),
    # The default. Katib's Gaussian process (skopt) takes every range for a logarithmic one, also those from zero, where it fails.
    "gp": Algorithm("multivariate-tpe"),
}
REPLACED = {
    "gp": "tuning.sampler gp is multivariate-tpe here: Katib's Gaussian process takes each range for a logarithmic one",
    "successive_halving": "tuning.pruner successive_halving is medianstop here: Katib ends trials early by their median alone",
    "hyperband": "tuning.pruner hyperband is medianstop here: Katib's hyperband begins each trial anew at every rung",
}
"""What Katib lacks of the defaults and their kin, and what stands in. Whatever else it lacks is refused."""


def experiment_yaml(config: Config, *, features: str, name: str) -> str:
    """The Experiment as a file, with what differs from `tts tune` at its head. Raises what `experiment` raises."""
    made = experiment(config, features=features, name=name)
    tuning = config.tuning
    remarks = [text for choice, text in REPLACED.items() if choice in (tuning.sampler, tuning.pruner)]
    head = ["Made by `tts katib-experiment`.", *(f"{text}." for text in remarks)]
    return "".join(f"# {line}\n" for line in head) + yaml.safe_dump(made, sort_keys=False, allow_unicode=True, width=150)


def experiment(config: Config, *, features: str, name: str) -> dict[str, Any]:
    """The Experiment, whose trials run `tts katib-trial` in the trial pods' template.

    Args:
        config: What trials share, and the study's space and budget; section cluster says how pods are.
        features: The feature store, as pods see it: a URI, or an absolute path on a volume of the template.
        name: Of the Experiment.

    Raises:
        UsageError: Something that Katib lacks, or that no study could have either.
    """
    tuning = config.tuning
    _check(tuning)
    objective, space = Objective(tuning.objective), search_space(tuning)
    default_params(config, space)
    algorithm = ALGORITHMS[tuning.sampler]
    for knob, distribution in space.items():
        _check_drawn(knob, distribution, tuning.sampler, algorithm)
    settings = {"random_state": tuning.seed} | ({"n_startup_trials": tuning.startup_trials} if algorithm.name == "multivariate-tpe" else {})
    spec: dict[str, Any] = {
        "objective": {
            "type": "minimize",
            "objectiveMetricName": OBJECTIVE,
            "additionalMetricNames": list(objective.metrics),
            "metricStrategies": [{"name": metric, "value": "latest"} for metric in (OBJECTIVE, *objective.metrics)],
        },
        "algorithm": {"algorithmName": algorithm.name, "algorithmSettings": _settings({} if algorithm.name == "sobol" else settings)},
    }
    if tuning.pruner != "none":
        stopping = {"min_trials_required": STARTUP_TRIALS, "start_step": tuning.pruner_min_reports}
        spec["earlyStopping"] = {"algorithmName": "medianstop", "algorithmSettings": _settings(stopping)}
    spec |= {
        "parallelTrialCount": min(tuning.workers, tuning.trials),
        "maxTrialCount": tuning.trials,
        "maxFailedTrialCount": tuning.trials,  # as in a study, a trial that failed is one that was tried
        "resumePolicy": "Never",
        "parameters": [_parameter(knob, distribution) for knob, distribution in space.items()],
        "metricsCollectorSpec": {"collector": {"kind": "StdOut"}},
        "trialTemplate": _template(config, space, features, name),
    }
    return {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "metadata": {"name": name}, "spec": spec}


def _check(tuning: TuningConfig) -> None:
    objective = Objective(tuning.objective)
    if objective.several:
        raise UsageError(f"Katib searches for one objective, tuning.objective names {', '.join(objective.names)}; give all terms one objective name")
    if tuning.conditions:
        knobs = ", ".join(condition.knob for condition in tuning.conditions)
        raise UsageError(f"Katib has no conditions, tuning.conditions holds one for {knobs}; leave them out, or use tts tune")
    if tuning.sampler not in ALGORITHMS:
        raise UsageError(f"tuning.sampler {tuning.sampler}: Katib has no such algorithm; choose one of {', '.join(ALGORITHMS)}")
    if tuning.pruner not in ("median", "successive_halving", "hyperband", "none"):
        raise UsageError(f"tuning.pruner {tuning.pruner}: Katib stops trials by their median alone; set tuning.pruner median or none")
    for limit in ("gpu_hours", "hours", "plateau_trials", "pruner_patience"):
        if getattr(tuning, limit):
            raise UsageError(f"tuning.{limit} is {getattr(tuning, limit):g}: Katib knows no such limit; set it to 0, or use tts tune")
    if tuning.gpus_per_trial > 1:
        raise UsageError(f"tuning.gpus_per_trial is {tuning.gpus_per_trial}: Katib stops trials of one process only; set it to 1, or use tts tune")


def _check_drawn(knob: str, distribution: BaseDistribution, sampler: str, algorithm: Algorithm) -> None:
    """Raises UsageError where Katib's algorithm would draw from another range than this."""
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return
    remedy = "set tuning.sampler tpe, or give the knob another range in tuning.ranges"
    if distribution.log and not algorithm.log:
        raise UsageError(f"tuning.sampler {sampler}: Katib's {algorithm.name} ignores that {knob} is spread over orders of magnitude; {remedy}")
    if distribution.log and isinstance(distribution, IntDistribution) and not algorithm.log_int:
        raise UsageError(f"tuning.sampler {sampler}: Katib's {algorithm.name} draws no whole numbers for {knob}; {remedy}")
    if distribution.step and distribution.low % distribution.step and not algorithm.step:
        raise UsageError(f"tuning.sampler {sampler}: Katib's {algorithm.name} counts the steps of {knob} from zero; {remedy}")


def _settings(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in values.items()]


def _parameter(knob: str, distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distribution.choices)
        listed = {"list": [_word(value) for value in distribution.choices]}
        return {"name": knob, "parameterType": "discrete" if numbers else "categorical", "feasibleSpace": listed}
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        raise TypeError(f"Katib has no words for {distribution!r}")
    spread = {"min": _word(distribution.low), "max": _word(distribution.high), "distribution": "logUniform" if distribution.log else "uniform"}
    whole = isinstance(distribution, IntDistribution)
    if distribution.step and not (whole and distribution.step == 1):
        spread["step"] = _word(distribution.step)
    return {"name": knob, "parameterType": "int" if whole else "double", "feasibleSpace": spread}


def _word(value: Any) -> str:
    """A value as the command line takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _template(config: Config, space: Space, features: str, name: str) -> dict[str, Any]:
    """The trial's Job: the pod of our own trials, with Katib's command in it."""
    template = read_template(config.cluster.template)
    job = build(Task(features, "", name), 1, config, template)
    pod = job["spec"]["template"]
    del pod["metadata"]["labels"]["app.kubernetes.io/instance"]
    pod["spec"].pop("topologySpreadConstraints", None)  # it counts the pods of one instance
    container = worker_of(pod, template.file)
    kept = [entry for entry in container["env"] if entry["name"] != STORAGE["name"]]  # the study is Katib's
    container["env"] = [*kept, {"name": CACHE, "value": config.cluster.node_cache}]
    # Katib puts arguments together with blanks and gives them to a shell, or leaves a shell's command as it is, which holds either way.
    container["command"], container["args"] = ["sh", "-c"], [_command(config, space, features)]
    spec = {
        "backoffLimit": config.tuning.max_retries,
        "podFailurePolicy": _failures(job),
        "activeDeadlineSeconds": job["spec"]["activeDeadlineSeconds"],
        "template": pod,
    }
    trial: dict[str, Any] = {"apiVersion": "batch/v1", "kind": "Job", "spec": spec}
    if config.cluster.queue:
        trial["metadata"] = {"labels": {QUEUE: config.cluster.queue}}
        spec["suspend"] = True
    return {
        "primaryContainerName": container["name"],
        "successCondition": FINISHED.format("Complete"),
        "failureCondition": FINISHED.format("Failed"),
        "trialParameters": [{"name": _reference(knob), "reference": knob} for knob in space],
        "trialSpec": trial,
    }


def _failures(job: Mapping[str, Any]) -> dict[str, Any]:
    """A Job without indexes fails as a whole where ours fails an index."""
    rules = [rule | {"action": rule["action"].replace("FailIndex", "FailJob")} for rule in job["spec"]["podFailurePolicy"]["rules"]]
    return {"rules": rules}


def _command(config: Config, space: Space, features: str) -> str:
    """What a trial runs, for a shell. Kubernetes takes $(NAME) for a variable, and two dollars for one; Katib fills in ${trialParameters...}."""
    preset, differing = _nearest_preset(config, space)
    words = ["tts", "katib-trial", features, RUN, "--preset", preset]
    for knob, value in differing.items():
        words += _flag(knob, value)
    line = shlex.join(words).replace("$", "$$")
    return " ".join([line, *(f"--{knob} '${{trialParameters.{_reference(knob)}}}'" for knob in space)])


def _nearest_preset(config: Config, space: Space) -> tuple[str, dict[str, Any]]:
    """The preset that is most like the configuration, and the knobs that differ. What the features were made with, they know themselves."""
    values = flatten(config)
    told = [knob for knob in values if knob not in space and not knob.startswith(tuple(f"{section}." for section in (*PREPARED, "cluster")))]
    differing = {}
    for name, make in PRESETS.items():
        base = flatten(make())
        differing[name] = {knob: values[knob] for knob in told if values[knob] != base[knob]}
    best = min(differing, key=lambda name: len(differing[name]))
    return best, differing[best]


def _flag(knob: str, value: Any) -> list[str]:
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [f"--{knob}", *value]
    return [f"--{knob}", json.dumps(value) if isinstance(value, list | dict) else _word(value)]


def _reference(knob: str) -> str:
    """The name of a knob inside the template."""
    return knob.replace(".", "_")
