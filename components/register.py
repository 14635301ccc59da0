"""Step: the model registry."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def register(
    run: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    preset: str,
    overrides: str,
    tracking_uri: str,
    work: str,
    registration: dsl.Output[dsl.Artifact],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Registers the voice; it becomes champion only if it is better than the one that is.

    Args:
        run: The training run.
        evaluation: Its evaluation.
        preset: Sizes and settings to start from.
        overrides: JSON object of knobs by their full names.
        tracking_uri: MLflow server, or empty.
        work: Folder or URI that outlives the step, or empty.
        registration: registration.json: version, champion, and why.
        figures: Version, and whether it is champion.
    """
    from tts import step

    form = {"preset": preset, "overrides": overrides, "tracking_uri": tracking_uri, "work": work}
    step.register(run, evaluation, registration, figures, **form)
