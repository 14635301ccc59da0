"""Step: the study."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tune(
    features: dsl.Input[dsl.Dataset],
    preset: str,
    trials: int,
    overrides: str,
    tracking_uri: str,
    work: str,
    study: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Searches for the best hyperparameters.

    Args:
        features: The feature store.
        preset: Sizes and settings to start from.
        trials: Finished trials that the study aims at; 0 keeps the preset's.
        overrides: JSON object of knobs by their full names.
        tracking_uri: MLflow server, or empty.
        work: Folder that outlives the step, or empty.
        study: best.yaml, trials.csv, study.json and the trials' folders.
        report: The study as a page.
        figures: Best value, trials by state.
    """
    from tts import step

    study.path = step.place(study.path, work, "study")
    fields = {"preset": preset, "overrides": overrides, "tracking_uri": tracking_uri, "work": work}
    for name, value in step.tune(features.path, study.path, report.path, trials=int(trials), **fields).items():
        figures.log_metric(name, value)
