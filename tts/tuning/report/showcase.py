"""What the best trial sounds like: a held-out sentence spoken by it, and where its attention was, in the study's folder and its tracked run."""

import logging
from pathlib import Path

import numpy as np

from tts.audio.griffin_lim import mel_to_wave
from tts.audio.wav import write_wav
from tts.data.store import FeatureStore
from tts.diagnostics.images import alignment_picture, seconds
from tts.errors import DataError, ServiceUnavailableError
from tts.evaluation.synthesis import synthesise
from tts.storage import prepare_folder, write_text
from tts.tracking import Tracker
from tts.training.checkpoint import load_model
from tts.training.precision import choose_device
from tts.tuning.database.attributes import TRACKING_RUN
from tts.tuning.study import Study
from tts.tuning.work.runs import run_folder

logger = logging.getLogger(__name__)

FOLDER = "best"
"""In the study's folder, and of the artefacts."""


def show_best(study: Study, number: int, features: Path, tracker: Tracker, parent: str, out: Path) -> None:
    """Puts picture and sound of trial `number` below the folder `out`, and among the artefacts of its tracked run if it has one below `parent`.

    A trial that cannot be heard is logged and left out.
    """
    trial = study.trials.trials[number]
    folder = out / FOLDER
    try:
        with run_folder(study, trial) as run_of_trial:
            speak(run_of_trial, features, folder)
    except (DataError, ServiceUnavailableError) as error:
        logger.warning("trial %d is the best, but there is nothing to hear of it: %s", number, error)
        return
    known = trial.user_attrs.get(TRACKING_RUN, {})
    if known.get("run") and known.get("parent") == parent:
        with tracker.run(f"trial-{number}", parent=parent, run_id=known["run"]) as run:
            run.artefact(folder, FOLDER)
            run.tags({"best": "true"})


def speak(run: Path, features: Path, out: Path) -> None:
    """Writes alignment.svg and speech.wav: the first held-out sentence, spoken freely. Raises DataError, CannotWriteError."""
    store = FeatureStore.open(features)
    prepare_folder(out)
    voice = load_model(run, device=(device := choose_device("auto")).type)
    place = int(store.held_out[0])
    utterance = next(synthesise(voice.model, [store.symbols(place).tolist()], voice.config.synthesis, device, [int(store.speaker_numbers[place])]))[0]
    if not np.isfinite(utterance.mel_TM).all():
        raise DataError(f"the voice in {run} makes values that are not finite")
    audio, synthesis = voice.config.audio, voice.config.synthesis
    write_text(out / "alignment.svg", alignment_picture(utterance.alignment_SN, store.texts[place], seconds(len(utterance.mel_TM), audio)))
    sound = mel_to_wave(utterance.mel_TM, audio, iterations=synthesis.griffin_lim_iterations, seed=synthesis.seed)
    write_wav(out / "speech.wav", sound, audio.sample_rate)
