"""Judges a trained voice by what it makes of held-out sentences on its own."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tts.audio.griffin_lim import mel_to_wave
from tts.audio.wav import wav_bytes
from tts.config import AudioConfig, Config, SynthesisConfig
from tts.data.store import FeatureStore
from tts.diagnostics.images import seconds
from tts.diagnostics.strict_json import to_json
from tts.errors import UsageError
from tts.evaluation.metrics import mel_cepstral_distortion
from tts.evaluation.report import Sample, write_report
from tts.evaluation.synthesis import Utterance, synthesise
from tts.evaluation.verdict import Judged, Verdict, judge, total
from tts.progress import Progress
from tts.storage import building, prepare_folder, write_text
from tts.training.checkpoint import LoadedModel, load_model
from tts.training.cores import set_threads
from tts.training.precision import choose_device

FORMAT = 1


@dataclass(frozen=True)
class Evaluation:
    """How a voice did."""

    passed: bool
    verdict: Verdict
    metrics: dict[str, float]
    """Over all sentences; see `verdict.total`. Not always finite."""
    sentences: tuple[Judged, ...]
    step: int
    """Of the checkpoint that spoke."""
    report: Path
    """report.html."""


def evaluate(run: Path, features: Path, out: Path, config: Config, *, study: Path | None, progress: Progress) -> Evaluation:
    """Speaks held-out sentences, each as its own speaker, with the run's best checkpoint and judges them against `config.evaluation`.

    Writes into `out`, replacing what an earlier evaluation left: `audio/<id>.reference.wav` and `audio/<id>.generated.wav`, `report.html` (the
    whole story, with the study's if its folder is given), and last `evaluation.json`. Of `config`, the sections synthesis and evaluation and
    the device count; the rest is the run's.

    Raises DataError (no checkpoint, damaged run, features or study), UsageError (the run was trained on other features), CannotWriteError.
    """
    prepare_folder(out)
    store = FeatureStore.open(features)
    set_threads(config.training.threads)
    device = choose_device(config.training.device)
    voice = load_model(run, device=device.type)
    _check_features(voice, store, run)
    chosen = store.held_out[: config.evaluation.sentences].tolist()
    samples: list[Sample] = []
    with building(out / "audio") as folder, progress.task("evaluate", len(chosen)) as task:
        sequences, speakers = [store.symbols(number).tolist() for number in chosen], store.speaker_numbers[chosen].tolist()
        for utterances in synthesise(voice.model, sequences, config.synthesis, device, speakers):
            for utterance in utterances:
                samples.append(_measure(store, chosen[len(samples)], utterance, voice, config))
                _write_audio(folder, samples[-1])
                task.advance(1)
    sentences = tuple(sample.judged for sample in samples)
    figures = total(sentences)
    verdict = judge(figures, config.evaluation)
    shown = voice.config.model_copy(update={"synthesis": config.synthesis, "evaluation": config.evaluation})
    write_report(
        out / "report.html", run=run, store=store, study=study, config=shown, step=voice.step, samples=samples, figures=figures, verdict=verdict
    )
    write_text(out / "evaluation.json", to_json(_document(run, voice, sentences, figures, verdict)))
    return Evaluation(verdict.passed, verdict, figures, sentences, voice.step, out / "report.html")


def _check_features(voice: LoadedModel, store: FeatureStore, run: Path) -> None:
    if voice.fingerprint != store.fingerprint:
        raise UsageError(
            f"{run} was trained on features {voice.fingerprint}, but {store.folder} holds {store.fingerprint}; give those that it was trained on"
        )


def _measure(store: FeatureStore, number: int, utterance: Utterance, voice: LoadedModel, config: Config) -> Sample:
    audio = voice.config.audio
    begun = time.perf_counter()
    generated_wav = _sound(utterance, audio, config.synthesis)
    vocoder_seconds = time.perf_counter() - begun
    reference_TM = store.mel(number)
    judged = Judged(
        id=store.ids[number],
        text=store.texts[number],
        symbols=len(store.symbols(number)),
        reference_seconds=seconds(len(reference_TM), audio),
        generated_seconds=seconds(len(utterance.mel_TM), audio),
        stop_reason=utterance.stop_reason,
        mel_cepstral_distortion=mel_cepstral_distortion(reference_TM, utterance.mel_TM),
        duration_ratio=len(utterance.mel_TM) / len(reference_TM),
        attention=utterance.attention,
        network_seconds=utterance.seconds,
        vocoder_seconds=vocoder_seconds,
        recogniser_error_rate=utterance.recogniser_error_rate,
        speaker=store.speaker(number),
    )
    return Sample(judged, reference_TM, utterance, store.reference_audio(number).read_bytes(), generated_wav)


def _sound(utterance: Utterance, audio: AudioConfig, config: SynthesisConfig) -> bytes:
    """A WAV file, or nothing where there is nothing to hear."""
    if len(utterance.mel_TM) < 2 or not np.isfinite(utterance.mel_TM).all():
        return b""
    return wav_bytes(mel_to_wave(utterance.mel_TM, audio, iterations=config.griffin_lim_iterations, seed=config.seed), audio.sample_rate)


def _write_audio(folder: Path, sample: Sample) -> None:
    (folder / f"{sample.judged.id}.reference.wav").write_bytes(sample.reference_wav)
    if sample.generated_wav:
        (folder / f"{sample.judged.id}.generated.wav").write_bytes(sample.generated_wav)


def _document(run: Path, voice: LoadedModel, sentences: Sequence[Judged], figures: dict[str, float], verdict: Verdict) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "run": run.resolve().name,
        "step": voice.step,
        "features": voice.fingerprint,
        "language": voice.config.text.language,
        "passed": verdict.passed,
        "criteria": [asdict(criterion) for criterion in verdict.criteria],
        "metrics": figures,
        "sentences": [asdict(sentence) for sentence in sentences],
    }
