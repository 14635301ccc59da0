"""Step: recordings into features."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    corpus: str, preset: str, language: str, overrides: str, work: str, features: dsl.Output[dsl.Dataset], figures: dsl.Output[dsl.Metrics]
) -> None:
    """Checks the recordings of a corpus and turns them into features.

    Args:
        corpus: Folder with the recordings in LJSpeech layout.
        preset: Sizes and settings to start from.
        language: Language of the transcripts.
        overrides: JSON object of knobs by their full names.
        work: Folder that outlives the step, or empty.
        features: The feature store.
        figures: Utterances, minutes, rejected clips.
    """
    from tts import step

    features.path = step.place(features.path, work, "features")
    made = step.prepare(corpus, features.path, preset=preset, language=language, overrides=overrides, work=work)
    for name, value in made.items():
        figures.log_metric(name, value)
