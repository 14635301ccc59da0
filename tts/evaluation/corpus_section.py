"""What the voice was trained on, and what quality control left out."""

import json
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from tts.data.store import FeatureStore
from tts.diagnostics.figures import COLOURS, HALF, sketch
from tts.diagnostics.images import seconds
from tts.diagnostics.page import Block, Fact, Facts, Note, Picture, Pictures, Section, Table, show, show_seconds
from tts.errors import DataError

LISTED = 200
"""Rejected clips in the table."""

_NOTED = {
    "resampled": "clips were resampled",
    "mixed_down": "clips were mixed down to one channel",
    "trimmed": "clips had silence at their ends cut",
    "dropped_characters": "characters that the symbol table does not have were dropped",
}


def corpus_section(store: FeatureStore) -> Section:
    """Totals, distributions, rejected clips. Raises DataError for a damaged quality.json."""
    quality = _quality(store)
    rejected = quality["rejected"]
    found = quality["accepted"] + len(rejected)
    facts = (
        Fact("Clips used", f"{quality['accepted']:,}", f"of {found:,} in the corpus"),
        Fact("Left out", f"{len(rejected):,}", f"{len(rejected) / found:.1%}" if rejected else "", "warning" if rejected else "good"),
        Fact("Speech", show_seconds(store.summary.seconds), f"{store.summary.frames:,} mel frames"),
        Fact("Held out", f"{len(store.held_out):,} clips", "never trained on"),
        Fact("Sampling rate", f"{store.config.audio.sample_rate:,} Hz"),
        Fact("Language", store.summary.language, f"{store.summary.symbols} symbols"),
    )
    counts = [f"{quality['counts'][name]:,} {words}" for name, words in _NOTED.items() if quality["counts"].get(name)]
    blocks: list[Block] = [Facts(facts)]
    if counts:
        blocks.append(Note("; ".join(counts).capitalize() + "."))
    blocks.append(Pictures((_durations(store), _rates(store)), 2))
    if store.speakers:
        blocks.append(_speakers(store))
    if rejected:
        rows = tuple((str(clip["id"]), str(clip["reason"]).replace("_", " "), str(clip["detail"])) for clip in rejected[:LISTED])
        rest = f", the first {LISTED:,} of {len(rejected):,}" if len(rejected) > LISTED else ""
        blocks.append(Table(("clip", "reason", "detail"), rows, caption=f"Clips that quality control left out{rest}."))
    else:
        blocks.append(Note("Quality control left no clip out.", "good"))
    return Section("corpus", "Voice and corpus", blocks=tuple(blocks))


def _speakers(store: FeatureStore) -> Table:
    rows = []
    for number, name in enumerate(store.speakers):
        theirs = np.flatnonzero(store.speaker_numbers == number)
        length = seconds(int(store.frames[theirs].sum()), store.config.audio)
        rate = show(sum(len(store.texts[int(place)]) for place in theirs) / length)
        rows.append((name, f"{len(theirs):,}", f"{np.isin(store.held_out, theirs).sum():,}", show_seconds(length), rate))
    columns = ("speaker", "clips", "held out", "speech", "characters a second")
    return Table(columns, tuple(rows), frozenset(columns[1:]), "Who speaks. Speaking rates are compared within a speaker's clips.")


def _durations(store: FeatureStore) -> Picture:
    lengths = [seconds(int(frames), store.config.audio) for frames in store.frames]
    caption = f"From {show(min(lengths))} to {show(max(lengths))} s, median {show(float(np.median(lengths)))} s."
    return Picture(_histogram(lengths, "length of a clip, seconds"), caption, "Lengths")


def _rates(store: FeatureStore) -> Picture:
    rates = [len(text) / seconds(int(frames), store.config.audio) for text, frames in zip(store.texts, store.frames, strict=True)]
    caption = f"Median {show(float(np.median(rates)))} characters a second. An outlier is a transcript that does not fit its recording."
    return Picture(_histogram(rates, "characters per second"), caption, "Speaking rate")


def _histogram(values: list[float], label: str) -> Markup:
    with sketch(HALF, f"Histogram: {label}") as picture:
        axes = picture.axes(label, "clips")
        axes.hist(values, bins=min(40, max(5, len(values) // 4)), color=COLOURS[0], edgecolor="none", rwidth=0.92)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return picture.svg


def _quality(store: FeatureStore) -> dict[str, Any]:
    path = store.folder / "quality.json"
    try:
        quality: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        counted = isinstance(quality["accepted"], int) and isinstance(quality["counts"], dict)
        listed = all({"id", "reason", "detail"} <= clip.keys() for clip in quality["rejected"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({type(error).__name__}: {error}); run `tts prepare` again") from error
    if not counted or not listed:
        raise DataError(f"{path} is damaged (an entry lacks a field); run `tts prepare` again")
    return quality
