"""Step: recordings into features."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    corpus: str, preset: str, language: str, overrides: str, work: str, features: dsl.Output[dsl.Dataset], figures: dsl.Output[dsl.Metrics]
) -> None:
    """Checks the recordings of a corpus and turns them into features.

    Args:
        corpus: Recordings (metadata.csv and wavs/, or manifest.jsonl) - a folder, or a URI such as s3://bucket/corpus.
        preset: Sizes and settings to start from.
        language: Language of the transcripts.
        overrides: JSON object of knobs by their full names.
        work: Folder or URI that outlives the step, or empty.
        features: The feature store.
        figures: Utterances, minutes, rejected clips.
    """
    from tts import step

    step.prepare(corpus, features, figures, preset=preset, language=language, overrides=overrides, work=work)
