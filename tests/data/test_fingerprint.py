import pytest

from tts.config import Config
from tts.config.load import override
from tts.data.fingerprint import fingerprint
from tts.text.symbols import SymbolTable

ENGLISH = SymbolTable.for_language("en")
BASE = fingerprint(Config(), ENGLISH, "corpus")


def test_sixteen_hex_digits():
    assert len(BASE) == 16
    assert int(BASE, 16) > 0


@pytest.mark.parametrize(
    "change",
    [
        {"audio.hop_length": 200}, {"audio.trim_db": 30.0}, {"text.language": "ru"}, {"text.unknown_symbol": "drop"}, {"quality.max_seconds": 9.0},
        {"data.held_out_share": 0.1}, {"data.held_out_max": 7}, {"data.split_seed": 1},
    ],
)  # fmt: skip
def test_what_decides_the_features_counts(change):
    assert fingerprint(override(Config(), change), ENGLISH, "corpus") != BASE


@pytest.mark.parametrize("change", [{"data.frame_budget": 500}, {"data.max_batch_size": 3}, {"optimiser.learning_rate": 0.1}, {"training.steps": 1}])
def test_what_does_not_does_not(change):
    assert fingerprint(override(Config(), change), ENGLISH, "corpus") == BASE


def test_corpus_and_symbols_count():
    assert fingerprint(Config(), ENGLISH, "other") != BASE
    assert fingerprint(Config(), SymbolTable.for_language("ru"), "corpus") != BASE
