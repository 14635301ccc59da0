"""The pipeline: prepare, tune, train, diagnose, evaluate, register."""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.diagnose import diagnose
from components.evaluate import evaluate
from components.prepare import prepare
from components.register import register
from components.train import train
from components.tune import tune
from pipelines.placement import Placement, launch_pods, place, place_on_gpus, share_memory

NAME = "smart-tuner-tts"


def training(placement: Placement | None, *, gpus: int = 0) -> Any:
    """The pipeline for a cluster, or without a placement for one machine, which knows neither pods nor a Workflow.

    `gpus` is what the form's field says first.
    """
    first = str(gpus)

    @dsl.pipeline(name=NAME, display_name="Smart Tuner TTS")
    def training(  # noqa: PLR0917  # the form's fields, which KFP passes by position
        corpus: str,
        preset: str = "tacotron2",
        language: str = "",
        trials: int = 0,
        workers: int = 0,
        training_steps: int = 0,
        gpus: str = first,  # text, because the backend sets a pod's GPUs from no number
        launcher: str = "",
        overrides: str = "",
        tracking_uri: str = "",
        work: str = "",
        node_selector: dict = {},  # type: ignore[type-arg]  # noqa: B006, RUF100  # KFP reads the annotation and keeps a copy
        tolerations: list = [],  # type: ignore[type-arg]  # noqa: B006, RUF100
    ) -> None:
        """From recordings and transcripts to a tuned, judged and registered Tacotron 2 voice.

        Args:
            corpus: Recordings (metadata.csv and wavs/, or manifest.jsonl) - a URI such as s3://bucket/corpus, or a folder as the steps see it.
            preset: Sizes and settings to start from - tacotron2, full, small or demo.
            language: Language of the transcripts - en or ru. Empty - the preset's.
            trials: Trials of the study. 0 - the preset's.
            workers: Trials at a time, each in a pod of its own. 0 - the preset's.
            training_steps: Updates of the final training. 0 - the preset's.
            gpus: GPUs of each trial and of the final training, a whole number. 0 - none, they run on the processor.
            launcher: Where trials run - kubernetes (pods of their own) or local (the tune step's pod). Empty - kubernetes.
            overrides: Any other knobs as JSON, by their full names - {"tuning.hours": 4, "optimiser.clip_norm": 0.5}.
            tracking_uri: MLflow server. Empty - the one that the ConfigMap tts-tracking names, or none.
            work: URI such as s3://bucket/voices/anna, or a folder on a volume that all steps mount, where half-done work outlives a step.
                Another run with the same one goes on with it. Empty - each run begins anew.
            node_selector: Labels of the nodes to train on, as JSON - {"gpu": "a100"}.
            tolerations: Taints of nodes that training puts up with, as JSON - [{"key": "team", "operator": "Exists"}]. That of GPUs always is.
        """
        prepared = prepare(corpus=corpus, preset=preset, language=language, overrides=overrides, work=work)
        features = prepared.outputs["features"]

        tuned = tune(
            features=features, preset=preset, trials=trials, workers=workers, gpus=gpus, launcher=launcher, overrides=overrides,
            tracking_uri=tracking_uri, work=work, image=placement.image if placement else "",
            # Names the run's Workflow, to which the trials' pods belong. kfp.local does not know it.
            workflow=dsl.PIPELINE_JOB_RESOURCE_NAME_PLACEHOLDER if placement else "",
        )  # fmt: skip
        study = tuned.outputs["study"]

        trained = train(
            features=features, study=study, preset=preset, training_steps=training_steps, gpus=gpus, overrides=overrides,
            tracking_uri=tracking_uri, work=work,
        )  # fmt: skip
        run = trained.outputs["run"]

        diagnosed = diagnose(run=run, work=work)
        evaluated = evaluate(run=run, features=features, study=study, preset=preset, overrides=overrides, work=work)
        # A voice that cannot be evaluated is when one wants to see what its training did.
        evaluated.after(diagnosed)
        registered = register(
            run=run, evaluation=evaluated.outputs["evaluation"], preset=preset, overrides=overrides, tracking_uri=tracking_uri, work=work
        )

        tasks = {
            "Prepare features": prepared, "Tune": tuned, "Train": trained, "Diagnose": diagnosed, "Evaluate": evaluated, "Register": registered,
        }  # fmt: skip
        for name, task in tasks.items():
            task.set_display_name(name)
            # Features follow from their inputs. The others have effects outside the pipeline (a study, tracking, the registry), or what they
            # need may be gone from there: a cached step would claim what is no more.
            task.set_caching_options(enable_caching=task is prepared)
        if placement:
            _place(tasks, placement, gpus=gpus, node_selector=node_selector, tolerations=tolerations)

    return training


def _place(tasks: Mapping[str, dsl.PipelineTask], placement: Placement, **nodes: Any) -> None:
    """Puts each task where it belongs. What the tune task asks for is its trials': whatever it says wins over their template."""
    asked = {"Prepare features": placement.heavy, "Tune": placement.trials, "Train": placement.heavy}
    for name, task in tasks.items():
        place(task, placement, asked.get(name, placement.light), tracked=name in ("Tune", "Train", "Register"))
    launch_pods(tasks["Tune"], placement)
    share_memory(tasks["Train"])
    for name in ("Tune", "Train"):
        place_on_gpus(tasks[name], placement, **nodes)
