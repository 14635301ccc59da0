"""Text in, speech out, from a run's folder alone."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tts.audio.griffin_lim import mel_to_wave
from tts.audio.wav import write_wav
from tts.config import Config
from tts.diagnostics.images import seconds
from tts.errors import DataError, UsageError
from tts.evaluation.style import Style, style_weights
from tts.evaluation.synthesis import StopReason, synthesise
from tts.text.pipeline import text_to_symbols
from tts.text.symbols import UnknownSymbolError
from tts.training.checkpoint import LoadedModel, load_model
from tts.training.cores import set_threads
from tts.training.precision import choose_device

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Speech:
    """What was written."""

    path: Path
    text: str
    """As it was read: normalised."""
    seconds: float
    stop_reason: StopReason
    step: int
    """Of the checkpoint that spoke."""


def synthesise_text(run: Path, text: str, output: Path, config: Config | None = None, *, speaker: str = "", style: Style | None = None) -> Speech:
    """Speaks `text` with the run's best checkpoint into the WAV file `output`; nothing but the run's checkpoints is needed.

    The run's language normalises the text. Of `config` (by default the run's own) only the section synthesis and the device count.
    `speaker` names who is to be heard where the voice tells speakers apart; `style` is for a voice with style tokens. Warns when the length
    limit ended the speech.

    Raises UsageError for a text without letters or with a character that the voice does not know, for a speaker or style that it does not have,
    and where it needs a speaker; DataError for a run without a whole checkpoint or a voice that is not finite; CannotWriteError.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder; name the WAV file to write")
    device = choose_device(config.training.device if config else "auto")
    voice = load_model(run, device=device.type)
    chosen = config or voice.config
    set_threads(chosen.training.threads)
    spelled, symbols = _spell(text, voice)
    who, how = [_number(speaker, voice)], style_weights(style or Style(), voice)
    utterance = next(synthesise(voice.model, [symbols], chosen.synthesis, device, who, how))[0]
    if not np.isfinite(utterance.mel_TM).all():
        raise DataError(f"the voice in {run} (step {voice.step}) makes values that are not finite; train it again")
    audio = voice.config.audio
    write_wav(
        output,
        mel_to_wave(utterance.mel_TM, audio, iterations=chosen.synthesis.griffin_lim_iterations, seed=chosen.synthesis.seed),
        audio.sample_rate,
    )
    length = seconds(len(utterance.mel_TM), audio)
    if utterance.stop_reason == "length limit":
        logger.warning(
            "the stop gate did not open: the speech was cut at %.1f s (synthesis.max_frames_per_symbol); the voice may need more training", length
        )
    return Speech(output, spelled, length, utterance.stop_reason, voice.step)


def _number(speaker: str, voice: LoadedModel) -> int:
    known = ", ".join(voice.speakers)
    if not voice.speakers and speaker:
        raise UsageError(f"the voice does not tell speakers apart (model.speaker_embedding is 0), so it has no {speaker!r}; leave --speaker out")
    if voice.speakers and not speaker:
        raise UsageError(f"the voice has several speakers; choose one with --speaker: {known}")
    if voice.speakers and speaker not in voice.speakers:
        raise UsageError(f"the voice has no speaker {speaker!r}; it has {known}")
    return voice.speakers.index(speaker) if speaker else 0


def _spell(text: str, voice: LoadedModel) -> tuple[str, list[int]]:
    try:
        normalised = text_to_symbols(text, voice.config.text).text
        symbols = voice.symbol_table.encode(normalised)
    except UnknownSymbolError as error:
        known = "".join(voice.symbol_table.symbols[2:])
        raise UsageError(
            f"the voice cannot say {error.character!r} (U+{ord(error.character):04X}) in {text!r}: its language is {voice.config.text.language} "
            f"and it knows the characters {known}"
        ) from None
    if not any(character.isalpha() for character in normalised):
        raise UsageError(f"there is nothing to say in {text!r}; give a text with letters or numbers")
    return normalised, symbols
