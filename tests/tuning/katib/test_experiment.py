"""The Experiment: the committed one is current, it says what the study says, its trials get the study's configuration, the rest is refused."""

import dataclasses
import functools
import json
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.cli.commands import COMMANDS
from tts.cli.parse import parse
from tts.config import Config
from tts.config.load import override, to_json
from tts.config.presets import demo, small
from tts.errors import UsageError
from tts.tuning.katib.experiment import experiment
from tts.tuning.kubernetes.template import read_template

COMMITTED = Path(__file__).parents[3] / "manifests" / "katib" / "experiment.yaml"
FEATURES = "s3://bucket/features"
KINDS = {
    "tuning.knobs": ["optimiser.learning_rate", "optimiser.warmup_steps", "model.reduction_factor", "losses.mel", "model.prenet_dropout"],
    "tuning.ranges": [
        {"knob": "losses.mel", "values": ["mse", "l1"]},
        {"knob": "optimiser.warmup_steps", "low": 100, "high": 1000, "step": 100},
        {"knob": "model.prenet_dropout", "low": 0.1, "high": 0.5, "step": 0.1},
    ],
    "optimiser.warmup_steps": 100,
}


def made(**knobs) -> dict:
    return experiment(override(Config(), {name.replace("__", "."): value for name, value in knobs.items()}), features=FEATURES, name="tts")


def test_the_committed_experiment_is_current(tts):
    code, out, _ = tts("katib-experiment")
    assert code == 0
    assert COMMITTED.read_text(encoding="utf-8") == out, "run `tts katib-experiment > manifests/katib/experiment.yaml` and commit the result"


def test_the_head_names_what_stands_in(tts):
    assert "# tuning.sampler gp is multivariate-tpe here" in tts("katib-experiment")[1]
    _, out, _ = tts("katib-experiment", "--tuning.sampler", "tpe", "--tuning.pruner", "none")
    assert [line for line in out.splitlines() if line.startswith("#")] == ["# Made by `tts katib-experiment`."]


def test_each_kind_of_range():
    spec = experiment(override(Config(), KINDS), features=FEATURES, name="tts")["spec"]
    assert {entry["name"]: (entry["parameterType"], entry["feasibleSpace"]) for entry in spec["parameters"]} == {
        "optimiser.learning_rate": ("double", {"min": "0.0001", "max": "0.004", "distribution": "logUniform"}),
        "optimiser.warmup_steps": ("int", {"min": "100", "max": "1000", "distribution": "uniform", "step": "100"}),
        "model.reduction_factor": ("discrete", {"list": ["1", "2", "3", "5"]}),
        "losses.mel": ("categorical", {"list": ["mse", "l1"]}),
        "model.prenet_dropout": ("double", {"min": "0.1", "max": "0.5", "distribution": "uniform", "step": "0.1"}),
    }


def test_objective_and_budget():
    spec = made(tuning__trials=4, tuning__workers=9, tuning__sampler="tpe", tuning__pruner="median", tuning__pruner_min_reports=3)["spec"]
    assert spec["objective"]["type"] == "minimize"
    assert spec["objective"]["objectiveMetricName"] == "objective"
    assert spec["objective"]["additionalMetricNames"] == ["mel_loss", "gate_loss", "attention_diagonality"]
    assert {entry["value"] for entry in spec["objective"]["metricStrategies"]} == {"latest"}
    assert (spec["parallelTrialCount"], spec["maxTrialCount"], spec["maxFailedTrialCount"]) == (4, 4, 4)
    assert spec["earlyStopping"]["algorithmSettings"][1] == {"name": "start_step", "value": "3"}
    assert "earlyStopping" not in made(tuning__pruner="none")["spec"]


@pytest.mark.parametrize(("sampler", "algorithm"), [("tpe", "multivariate-tpe"), ("cmaes", "cmaes"), ("qmc", "sobol"), ("random", "random")])
def test_samplers(sampler, algorithm):
    knobs = ["model.prenet_dropout", "model.encoder_dropout"]
    chosen = made(tuning__sampler=sampler, tuning__knobs=knobs)["spec"]["algorithm"]
    assert chosen["algorithmName"] == algorithm
    assert ({"name": "random_state", "value": "0"} in chosen["algorithmSettings"]) == (sampler != "qmc")


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"tuning.sampler": "nsgaii"}, "tuning.sampler nsgaii: Katib has no such algorithm; choose one of tpe, random, cmaes, qmc, gp"),
        ({"tuning.sampler": "cmaes"}, "Katib's cmaes ignores that optimiser.learning_rate is spread over orders of magnitude; set"),
        ({"tuning.sampler": "qmc"}, "Katib's sobol ignores that optimiser.learning_rate is spread"),
        ({"tuning.sampler": "random"}, "Katib's random draws no whole numbers for optimiser.warmup_steps"),
        (
            {
                "tuning.sampler": "random", "tuning.knobs": ["model.prenet_dropout"],
                "tuning.ranges": [{"knob": "model.prenet_dropout", "low": 0.25, "high": 0.65, "step": 0.2}], "model.prenet_dropout": 0.45,
            },
            "Katib's random counts the steps of model.prenet_dropout from zero",
        ),
        ({"tuning.pruner": "wilcoxon"}, "tuning.pruner wilcoxon: Katib stops trials by their median alone; set tuning.pruner median or none"),
        ({"tuning.pruner_patience": 2}, "tuning.pruner_patience is 2: Katib knows no such limit"),
        ({"tuning.hours": 3.5}, "tuning.hours is 3.5: Katib knows no such limit"),
        ({"tuning.gpu_hours": 3.0}, "tuning.gpu_hours is 3"),
        ({"tuning.plateau_trials": 3}, "tuning.plateau_trials is 3"),
        ({"tuning.gpus_per_trial": 2}, "tuning.gpus_per_trial is 2: Katib stops trials of one process only"),
        (
            {"tuning.conditions": [{"knob": "optimiser.warmup_steps", "when": "optimiser.learning_rate", "above": 0.001}]},
            "Katib has no conditions, tuning.conditions holds one for optimiser.warmup_steps",
        ),
        (
            {"tuning.objective": [{"metric": "mel_loss"}, {"metric": "gate_loss", "objective": "gate"}]},
            "Katib searches for one objective, tuning.objective names loss, gate",
        ),
        ({"tuning.knobs": ["model.prenet_dropuot"]}, "'model.prenet_dropuot' is not a knob"),
        ({"model.prenet_dropout": 0.05}, "model.prenet_dropout is 0.05, outside its search range"),
        ({"cluster.template": "missing.yaml"}, "cluster.template: cannot read missing.yaml"),
    ],
)  # fmt: skip
def test_what_katib_lacks_is_refused(knobs, message):
    with pytest.raises(UsageError) as refused:
        experiment(override(Config(), knobs), features=FEATURES, name="tts")
    assert message in str(refused.value)


def test_a_path_that_pods_do_not_see_is_refused(tts):
    code, out, said = tts("katib-experiment", "--features", "features")
    assert (code, out) == (64, "")
    assert "features features are a path on this machine, which trial pods do not see" in said


def test_the_pod_is_that_of_our_own_trials():
    config = {
        "cluster.image": "mine:1", "cluster.node_selector": ["gpu=yes"], "cluster.spread": "node", "cluster.queue": "night",
        "tuning.gpus_per_trial": 1, "tuning.max_retries": 5,
    }  # fmt: skip
    trial = experiment(override(Config(), config), features=FEATURES, name="tts")["spec"]["trialTemplate"]
    job, pod = trial["trialSpec"], trial["trialSpec"]["spec"]["template"]
    template = read_template("").pod["spec"]
    assert trial["primaryContainerName"] == template["containers"][0]["name"]
    for field in ("securityContext", "automountServiceAccountToken", "volumes"):
        assert pod["spec"][field] == template[field]
    container = pod["spec"]["containers"][0]
    assert container["securityContext"] == template["containers"][0]["securityContext"]
    assert (container["image"], container["resources"]["limits"]["nvidia.com/gpu"]) == ("mine:1", "1")
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "trial"
    assert "TTS_STORAGE" not in {entry["name"] for entry in container["env"]}  # the study is in Katib's hands
    assert "topologySpreadConstraints" not in pod["spec"]
    assert job["metadata"] == {"labels": {"kueue.x-k8s.io/queue-name": "night"}}
    assert (job["spec"]["suspend"], job["spec"]["backoffLimit"], pod["spec"]["restartPolicy"]) == (True, 5, "Never")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["Ignore", "FailJob"]
    assert rules[1]["onExitCodes"]["values"] == [64, 70]


def test_every_parameter_is_filled_in_once():
    spec = experiment(override(Config(), KINDS), features=FEATURES, name="tts")["spec"]
    line = spec["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    references = {entry["name"]: entry["reference"] for entry in spec["trialTemplate"]["trialParameters"]}
    assert list(references.values()) == [entry["name"] for entry in spec["parameters"]]
    for name, knob in references.items():
        assert line.count(f"--{knob} '${{trialParameters.{name}}}'") == 1
    assert line.count("${") == len(references)


EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "tracking.experiment": st.text(st.characters(max_codepoint=0x4FF, exclude_categories=("C", "Z")), min_size=1, max_size=20),
        "data.frame_budget": st.integers(1000, 99_999),
        "optimiser.minimum_learning_rate": st.floats(1e-7, 1e-5),
        "tuning.objective": st.just([{"metric": "free_mcd", "weight": 2.0}, {"metric": "gate_loss", "scale": 0.5}]),
        "tuning.steps": st.integers(1000, 9000),
        "model.prenet_dropout_at_inference": st.booleans(),
    },
)


@settings(max_examples=6)
@given(preset=st.sampled_from([Config, small, demo]), knobs=EXTRA)
def test_a_trial_gets_the_configuration_of_the_study(tmp_path_factory, preset, knobs):
    config = override(preset(), {"tuning.sampler": "tpe", **knobs})
    spec = experiment(config, features=FEATURES, name="tts")["spec"]
    text = json.dumps(spec["trialTemplate"]["trialSpec"])
    values = {entry["name"]: entry["feasibleSpace"]["max"] for entry in spec["parameters"]}
    for entry in spec["trialTemplate"]["trialParameters"]:
        text = text.replace("${trialParameters." + entry["name"] + "}", values[entry["reference"]])  # as Katib does
    container = json.loads(text)["spec"]["template"]["spec"]["containers"][0]
    line = container["args"][0].replace("$$", "$")  # as Kubernetes does
    assert line.startswith("tts katib-trial s3://bucket/features /tmp/run --preset ")
    spoken = subprocess.run(
        [*container["command"], line.replace("tts ", 'show() { for word; do printf "%s\\0" "$word"; done; }; show ', 1)],
        capture_output=True, text=True, check=True,
    ).stdout.split("\0")[:-1]  # fmt: skip
    features = tmp_path_factory.mktemp("features")
    (features / "config.json").write_text(to_json(config))
    assert understood([str(features), *spoken[2:]]) == override(config, values)


def understood(arguments: list[str]) -> Config:
    """The configuration that `tts katib-trial` takes from its arguments."""
    command, got = COMMANDS["katib-trial"], []

    @functools.wraps(command.call)
    def trial(*, config, **_):
        got.append(config)

    parse(dataclasses.replace(command, call=trial), arguments)()
    return got[0]


def test_the_line_holds_with_and_without_katibs_redirection(tmp_path):
    line = made()["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["args"][0]
    program = tmp_path / "tts"
    program.write_text('#!/bin/sh\necho "objective=1 for $1"\n')
    program.chmod(0o755)
    log = tmp_path / "metrics.log"
    wrapped = f"{line} 1>{shlex.quote(str(log))} 2>&1 && echo completed > {shlex.quote(str(tmp_path))}/$$$$.pid"
    subprocess.run(["/bin/sh", "-c", wrapped.replace("${", "$${").replace("$$$$", "77")], check=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert log.read_text() == "objective=1 for katib-trial\n"
    assert (tmp_path / "77.pid").read_text() == "completed\n"


def test_the_committed_file_is_one_object():
    (found,) = yaml.safe_load_all(COMMITTED.read_text(encoding="utf-8"))
    assert (found["apiVersion"], found["kind"]) == ("kubeflow.org/v1beta1", "Experiment")
