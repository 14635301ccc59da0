"""Step: the study."""

from kfp import dsl

from components.image import IMAGE

FIELD, PASS = dsl.TaskConfigField, dsl.TaskConfigPassthrough
# The pod of this step takes no GPU and needs no GPU's node: it only launches the trials' pods, which get all of it.
PLACEMENT = [
    PASS(field=FIELD.RESOURCES),
    PASS(field=FIELD.KUBERNETES_AFFINITY),
    PASS(field=FIELD.KUBERNETES_TOLERATIONS),
    PASS(field=FIELD.KUBERNETES_NODE_SELECTOR),
    PASS(field=FIELD.ENV, apply_to_task=True),
    PASS(field=FIELD.KUBERNETES_VOLUMES, apply_to_task=True),
]


@dsl.component(base_image=IMAGE, install_kfp_package=False, task_config_passthroughs=PLACEMENT)
def tune(
    *,
    features: dsl.Input[dsl.Dataset],
    preset: str,
    trials: int,
    workers: int,
    gpus: str,
    launcher: str,
    overrides: str,
    tracking_uri: str,
    work: str,
    workflow: str,
    image: str,
    placement: dsl.TaskConfig,
    study: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Searches for the best hyperparameters.

    Args:
        features: The feature store.
        preset: Sizes and settings to start from.
        trials: Finished trials that the study aims at; 0 keeps the preset's.
        workers: Workers that share the study; 0 keeps the preset's.
        gpus: GPUs of each trial.
        launcher: Where trials run - kubernetes or local; empty: pods on a cluster, processes elsewhere.
        overrides: JSON object of knobs by their full names.
        tracking_uri: MLflow server, or empty.
        work: Folder or URI that outlives the step, or empty.
        workflow: Name of the pipeline's run, to which the trials' pods belong.
        image: Image of the trials' pods.
        placement: What the pipeline set on this task, handed on to the trials' pods.
        study: best.yaml, trials.csv, study.json.
        report: The study as a page.
        figures: Best value, trials by state.
    """
    from tts import step

    step.tune(
        features, study, report, figures, preset=preset, trials=trials, workers=workers, gpus=gpus, launcher=launcher, overrides=overrides,
        tracking_uri=tracking_uri, work=work, workflow=workflow, image=image, placement=vars(placement),
    )  # fmt: skip
