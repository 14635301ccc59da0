"""The pipeline: prepare, tune, train, diagnose, evaluate, register."""

from kfp import dsl, kubernetes

from components.diagnose import diagnose
from components.evaluate import evaluate
from components.prepare import prepare
from components.register import register
from components.train import train
from components.tune import tune


@dsl.pipeline(name="smart-tuner-tts", display_name="Smart Tuner TTS")
def training(
    corpus: str,
    preset: str = "tacotron2",
    language: str = "",
    trials: int = 0,
    training_steps: int = 0,
    overrides: str = "",
    tracking_uri: str = "",
    work: str = "",
) -> None:
    """From recordings and transcripts to a tuned, judged and registered Tacotron 2 voice.

    Args:
        corpus: Folder with the recordings in LJSpeech layout (metadata.csv and wavs/), as the steps see it.
        preset: Sizes and settings to start from - tacotron2, small or demo.
        language: Language of the transcripts - en or ru. Empty - the preset's.
        trials: Trials of the study. 0 - the preset's.
        training_steps: Updates of the final training. 0 - the preset's.
        overrides: Any other knobs as JSON, by their full names - {"tuning.workers": 4, "optimiser.clip_norm": 0.5}.
        tracking_uri: MLflow server. Empty - the one that the steps' environment names, or a file in the work folder.
        work: Folder that all steps share and that outlives them, so that a killed step goes on. Empty - each step leaves artefacts only.
    """
    prepared = prepare(corpus=corpus, preset=preset, language=language, overrides=overrides, work=work)
    features = prepared.outputs["features"]

    tuned = tune(features=features, preset=preset, trials=trials, overrides=overrides, tracking_uri=tracking_uri, work=work)
    study = tuned.outputs["study"]

    trained = train(
        features=features, study=study, preset=preset, training_steps=training_steps, overrides=overrides, tracking_uri=tracking_uri, work=work
    )
    run = trained.outputs["run"]

    diagnosed = diagnose(run=run, work=work)
    evaluated = evaluate(run=run, features=features, study=study, preset=preset, overrides=overrides, work=work)
    # A voice that cannot be evaluated is when one wants to see what its training did.
    evaluated.after(diagnosed)
    registered = register(
        run=run, evaluation=evaluated.outputs["evaluation"], preset=preset, overrides=overrides, tracking_uri=tracking_uri, work=work
    )
    # Registering has an effect outside the pipeline: a cached step would claim a version that a lost registry no longer has.
    registered.set_caching_options(enable_caching=False)

    for task, name in (
        (prepared, "Prepare features"),
        (tuned, "Tune"),
        (trained, "Train"),
        (diagnosed, "Diagnose"),
        (evaluated, "Evaluate"),
        (registered, "Register"),
    ):
        task.set_display_name(name)
        kubernetes.set_security_context(task, run_as_non_root=True)
