"""Step: held-out sentences spoken and judged."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    run: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    study: dsl.Input[dsl.Artifact],
    preset: str,
    overrides: str,
    work: str,
    evaluation: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    figures: dsl.Output[dsl.Metrics],
) -> None:
    """Lets the voice speak held-out sentences and reports the whole story.

    Args:
        run: The training run.
        features: The feature store, for the held-out sentences.
        study: The study, for the report.
        preset: Sizes and settings to start from.
        overrides: JSON object of knobs by their full names.
        work: Folder or URI that outlives the step, or empty.
        evaluation: evaluation.json, report.html, audio/.
        report: The page: data, study, training, alignments, audio, verdict.
        figures: Metrics of the voice, and whether it passed.
    """
    from tts import step

    step.evaluate(run, features, study, evaluation, report, figures, preset=preset, overrides=overrides, work=work)
