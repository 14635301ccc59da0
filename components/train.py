"""Step: the final training."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    features: dsl.Input[dsl.Dataset],
    study: dsl.Input[dsl.Artifact],
    preset: str,
    training_steps: int,
    gpus: str,
    overrides: str,
    tracking_uri: str,
    work: str,
    run: dsl.Output[dsl.Model],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Trains the voice with the study's best configuration; goes on from its last checkpoint.

    Args:
        features: The feature store.
        study: The study, for its best.yaml.
        preset: Sizes and settings to start from.
        training_steps: Updates in all; 0 keeps the preset's.
        gpus: GPUs to train on.
        overrides: JSON object of knobs by their full names.
        tracking_uri: MLflow server, or empty.
        work: Folder or URI that outlives the step, or empty.
        run: Checkpoints, metrics.jsonl, config.json.
        figures: Validation metrics of the best step.
    """
    from tts import step

    step.train(
        features, study, run, figures, preset=preset, training_steps=training_steps, gpus=gpus, overrides=overrides, tracking_uri=tracking_uri,
        work=work,
    )  # fmt: skip
