"""A corpus into a feature store."""

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts.audio.silence import trim
from tts.audio.wav import read_wav, wav_bytes
from tts.config import AudioConfig, Config
from tts.config.load import to_json
from tts.data import store
from tts.data.clip import Clip
from tts.data.corpus import corpus_digest, read_corpus
from tts.data.extraction import Extracted, extract_all
from tts.data.fingerprint import fingerprint
from tts.data.mel_file import MelFile
from tts.data.quality import Measures, Rejection, check_corpus, refuse_if_too_many, report
from tts.data.split import split
from tts.data.store import FeatureStore, Summary
from tts.errors import DataError, UsageError
from tts.progress import Progress
from tts.storage import building, check_own, replaceable, write_text
from tts.text.symbols import SymbolTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrepareSummary:
    """What `prepare` left behind."""

    utterances: int
    rejected: int
    seconds: float
    """Of the accepted utterances."""
    frames: int
    fingerprint: str
    reused: bool
    """The store was there already, made from the same corpus with the same knobs."""


@dataclass(frozen=True)
class _Utterance:
    clip: Clip
    symbols: NDArray[np.int16]
    frames: int
    mel_sum_M: NDArray[np.float64]
    mel_square_sum_M: NDArray[np.float64]
    measures: Measures


def prepare(corpus: Path, features: Path, config: Config, *, progress: Progress) -> PrepareSummary:
    """Makes the feature store of a corpus, whole or not at all; returns at once if it is there already.

    Raises DataError for a corpus that cannot be used, UsageError if `features` holds something else, CannotWriteError.
    """
    _check_target(features)
    clips = read_corpus(corpus, config.text.language)
    table = SymbolTable.for_language(config.text.language)
    digest = corpus_digest(corpus, clips, progress)
    key = fingerprint(config, table, digest)
    ready = _reusable(features, key)
    if ready is not None:
        if ready.config != config:  # in knobs that do not touch the features: they are what later stages start from
            write_text(features / store.CONFIG, to_json(config))
        return _result(ready.summary, len(ready.quality["rejected"]), reused=True)
    with building(features) as folder:
        utterances, rejections = _extract(clips, folder, config, progress)
        _name_the_lost(clips, utterances)
        held_out = _split(utterances, config)
        _write_held_out(folder, utterances, held_out, config)
        _write_index(folder, utterances, held_out, config)
        _write_json(folder / store.QUALITY, report([utterance.measures for utterance in utterances], rejections))
        summary = _write_summary(folder, utterances, held_out, config, digest)
    return _result(summary, len(rejections), reused=False)


def _check_target(features: Path) -> None:
    replaceable(features)
    check_own(features, store.NAMES, "a feature store")
    if features.is_dir() and any(features.iterdir()) and not (features / store.FEATURES).is_file():
        raise UsageError(f"{features} holds files that are not a feature store; choose another folder, nothing there was touched")


def _reusable(features: Path, key: str) -> FeatureStore | None:
    if not (features / store.FEATURES).is_file():
        return None
    try:
        ready = FeatureStore.open(features)
        ready.verify()
    except DataError as error:
        logger.warning("%s; making it anew", error)
        return None
    if ready.fingerprint != key:
        logger.info("%s was made from other recordings or with other knobs (%s, now %s); making it anew", features, ready.fingerprint, key)
        return None
    return ready


def _extract(clips: Sequence[Clip], folder: Path, config: Config, progress: Progress) -> tuple[list[_Utterance], list[Rejection]]:
    """Writes the mels of the clips that pass quality control; returns those clips, and the rejections in the order of the corpus."""
    utterances: list[_Utterance] = []
    rejections: list[Rejection] = []
    extracted = closing(extract_all(clips, config))
    with MelFile(folder / store.MELS, config.audio.mels) as mels, progress.task("prepare", len(clips)) as task, extracted as results:
        for result in results:
            if isinstance(result, Extracted):
                mels.append(result.mel)
                utterances.append(_utterance(result))
            else:
                rejections.append(result)
            task.advance(1, rejected=str(len(rejections)))
        rejections += check_corpus([utterance.measures for utterance in utterances], config.quality)
        rejected = {rejection.id for rejection in rejections}
        mels.keep([utterance.clip.id not in rejected for utterance in utterances])
    order = {clip.id: place for place, clip in enumerate(clips)}
    rejections.sort(key=lambda rejection: order[rejection.id])
    for rejection in rejections:
        logger.info("clip %s is left out: %s: %s", rejection.id, rejection.reason, rejection.detail)
    refuse_if_too_many(rejections, len(clips), config.quality)
    return [utterance for utterance in utterances if utterance.clip.id not in rejected], rejections


def _utterance(result: Extracted) -> _Utterance:
    symbols = np.array(result.encoded.symbols, dtype=np.int16)
    mel_TM = result.mel.astype(np.float64)
    return _Utterance(result.clip, symbols, len(mel_TM), mel_TM.sum(axis=0), np.square(mel_TM).sum(axis=0), result.measures)


def _name_the_lost(clips: Sequence[Clip], utterances: Sequence[_Utterance]) -> None:
    lost = sorted({clip.speaker for clip in clips} - {utterance.clip.speaker for utterance in utterances})
    if lost and utterances:
        logger.warning("no clip of %s can be used; quality.json says why", ", ".join(lost))


def _split(utterances: Sequence[_Utterance], config: Config) -> NDArray[np.bool_]:
    speakers = [utterance.clip.speaker for utterance in utterances]
    held_out = split([utterance.measures.text for utterance in utterances], config.data, speakers)
    absent = sorted(set(speakers) - {speakers[place] for place in np.flatnonzero(held_out)})
    if absent:
        logger.warning("no clip of %s is held out: too few clips, or data.held_out_share and data.held_out_max are too small", ", ".join(absent))
    return held_out


def _write_held_out(folder: Path, utterances: Sequence[_Utterance], held_out: NDArray[np.bool_], config: Config) -> None:
    (folder / store.HELD_OUT).mkdir()
    for index in np.flatnonzero(held_out).tolist():
        clip = utterances[index].clip
        samples = trim(read_wav(clip.audio, config.audio.sample_rate).samples, config.audio)
        (folder / store.HELD_OUT / f"{clip.id}.wav").write_bytes(wav_bytes(samples, config.audio.sample_rate))


def _write_index(folder: Path, utterances: Sequence[_Utterance], held_out: NDArray[np.bool_], config: Config) -> None:
    names = sorted({utterance.clip.speaker for utterance in utterances} - {""})
    # A corpus that names no speakers makes the store that it always made.
    numbers: dict[str, Any] = {"speakers": np.array([names.index(utterance.clip.speaker) for utterance in utterances])} if names else {}
    np.savez(
        folder / store.INDEX,
        offsets=_offsets([utterance.frames for utterance in utterances]),
        symbols=np.concatenate([utterance.symbols for utterance in utterances]),
        symbol_offsets=_offsets([len(utterance.symbols) for utterance in utterances]),
        held_out=held_out,
        **numbers,
    )
    texts = {
        "ids": [utterance.clip.id for utterance in utterances],
        "normalised": [utterance.measures.text for utterance in utterances],
        "original": [utterance.clip.text for utterance in utterances],
        **({"speakers": names} if names else {}),
    }
    _write_json(folder / store.TEXTS, texts)
    (folder / store.CONFIG).write_text(to_json(config), encoding="utf-8")


def _write_summary(folder: Path, utterances: Sequence[_Utterance], held_out: NDArray[np.bool_], config: Config, corpus: str) -> Summary:
    """Written last, because it knows the other files. Raises DataError if a mel band's mean or deviation is not finite."""
    frames = sum(utterance.frames for utterance in utterances)
    mean_M, deviation_M = _statistics(utterances, frames, config)
    files = {str(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file() and path.name != store.CONFIG}
    table = SymbolTable.for_language(config.text.language)
    summary = Summary(
        format=store.FORMAT,
        fingerprint=fingerprint(config, table, corpus),
        corpus=corpus,
        language=config.text.language,
        symbols=len(table),
        utterances=len(utterances),
        held_out=int(held_out.sum()),
        frames=frames,
        seconds=sum(utterance.measures.seconds for utterance in utterances),
        mel_mean=mean_M.tolist(),
        mel_deviation=deviation_M.tolist(),
        files=files,
        content=store.content_digest(folder, files),
    )
    _write_json(folder / store.FEATURES, summary.model_dump())
    return summary


def _statistics(utterances: Sequence[_Utterance], frames: int, config: Config) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (M,) of each mel band over all frames."""
    for utterance in utterances:
        if not np.isfinite(utterance.mel_square_sum_M).all():
            raise DataError(
                f"clip {utterance.clip.id} has mel frames that are not finite; audio.log_floor ({config.audio.log_floor}) may be too small for "
                f"single precision: raise it, the default is {AudioConfig().log_floor}"
            )
    mean_M = np.sum([utterance.mel_sum_M for utterance in utterances], axis=0) / frames
    variance_M = np.sum([utterance.mel_square_sum_M for utterance in utterances], axis=0) / frames - mean_M**2
    return mean_M, np.sqrt(np.maximum(variance_M, 0))


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _result(summary: Summary, rejected: int, *, reused: bool) -> PrepareSummary:
    return PrepareSummary(summary.utterances, rejected, summary.seconds, summary.frames, summary.fingerprint, reused)
