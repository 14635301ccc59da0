"""Step: what attention, stop gate and gradients did."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def diagnose(
    run: dsl.Input[dsl.Model], work: str, diagnostics: dsl.Output[dsl.Artifact], report: dsl.Output[dsl.HTML], figures: dsl.Output[dsl.Metrics]
) -> None:
    """Examines the training run.

    Args:
        run: The training run.
        work: Folder or URI that outlives the step, or empty.
        diagnostics: diagnostics.json and the page.
        report: The page.
        figures: Newest validation metrics.
    """
    from tts import step

    step.diagnose(run, diagnostics, report, figures, work=work)
