"""corpus.json against counts of the transcripts' characters."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from tts.data.store import QUALITY
from tts.errors import DataError
from tts.training.corpus_record import corpus_record, write_corpus_record


def _characters(store, utterances):
    return Counter("".join(store.texts[index] for index in utterances))


def test_symbols_are_counted_as_the_transcripts_have_them(store):
    record = corpus_record(store)
    training, held_out = _characters(store, store.train), _characters(store, store.held_out)
    assert list(record["symbols"]) == list(store.symbol_table.symbols[2:])
    assert record["symbols"] == {symbol: {"training": training[symbol], "held_out": held_out[symbol]} for symbol in record["symbols"]}
    assert sum(training.values()) > 100
    assert record["utterances"] == {"training": len(store.train), "held_out": len(store.held_out)}


def test_a_letter_that_is_only_held_out_is_dead_and_punctuation_never_is(store):
    words = [index for index in range(len(store.ids)) if "z" not in store.texts[index] and '"' not in store.texts[index]]
    record = corpus_record(dataclasses.replace(store, train=np.array(words)))
    seen = _characters(store, words)
    assert "z" in record["dead_symbols"]
    assert record["dead_symbols"] == [symbol for symbol in record["symbols"] if symbol.isalpha() and not seen[symbol]]


def test_nothing_to_train_on_leaves_every_letter_dead(store):
    record = corpus_record(dataclasses.replace(store, train=np.zeros(0, dtype=np.int64)))
    assert "".join(record["dead_symbols"]) == "abcdefghijklmnopqrstuvwxyz"


def _with_quality(store, tmp_path, text):
    (tmp_path / QUALITY).write_text(text)
    return dataclasses.replace(store, folder=tmp_path)


def test_rejected_clips_are_those_of_quality_control(store, tmp_path):
    rejected = [{"id": "a", "reason": "silent", "detail": "peak -90 dBFS"}]
    assert corpus_record(_with_quality(store, tmp_path, json.dumps({"rejected": rejected})))["rejected"] == rejected
    assert corpus_record(_with_quality(store, tmp_path, "{}"))["rejected"] is None
    with pytest.raises(DataError, match="damaged"):
        corpus_record(_with_quality(store, tmp_path, "no json"))


def test_it_is_written_whole_as_json(store, tmp_path):
    write_corpus_record(tmp_path / "corpus.json", store)
    assert json.loads((tmp_path / "corpus.json").read_text()) == corpus_record(store)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.json"]
