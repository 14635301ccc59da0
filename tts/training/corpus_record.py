"""corpus.json: what a run was given to train on, written once at its start. It follows from the features alone, so a resumed run has the same.

| field | holds |
|---|---|
| `symbols` | of each character that the network reads: how often it is in the transcripts that are trained on, and in those held out |
| `dead_symbols` | characters with a sound that no transcript to train on has: their embedding stays as it was drawn |
| `rejected` | id, reason and detail of each clip that quality control left out; null where the features do not say |
| `utterances` | how many are trained on and held out |
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts.data.store import FeatureStore
from tts.storage import write_text


def write_corpus_record(path: Path, store: FeatureStore) -> None:
    """Raises DataError for a damaged quality.json in the feature store, CannotWriteError."""
    write_text(path, json.dumps(corpus_record(store), indent=2, ensure_ascii=False) + "\n")


def corpus_record(store: FeatureStore) -> dict[str, Any]:
    """What `corpus.json` holds. Raises DataError."""
    numbers, symbols = store.symbol_table.numbers, store.symbol_table.symbols
    training, held_out = (_counts(store, utterances) for utterances in (store.train, store.held_out))
    return {
        "symbols": {symbol: {"training": int(training[number]), "held_out": int(held_out[number])} for symbol, number in numbers.items()},
        "dead_symbols": [symbols[number] for number in store.symbol_table.spoken if training[number] == 0],
        "rejected": store.quality.get("rejected"),
        "utterances": {"training": len(store.train), "held_out": len(store.held_out)},
    }


def _counts(store: FeatureStore, utterances: NDArray[np.int64]) -> NDArray[np.int64]:
    """By the symbol's number."""
    spelled = [store.symbols(int(utterance)) for utterance in utterances]
    return np.bincount(np.concatenate(spelled) if spelled else np.zeros(0, dtype=np.int64), minlength=len(store.symbol_table))
