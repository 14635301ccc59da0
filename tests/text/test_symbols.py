# ruff: noqa: RUF001 - Cyrillic letters that look like Latin ones are meant
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import TextConfig
from tts.errors import DataError, UsageError
from tts.text import text_to_symbols
from tts.text.symbols import LETTERS, PUNCTUATION, SymbolTable, UnknownSymbolError

RUSSIAN_ALPHABET = "абвгдеёжзийклмнопрстуфхцчшщъыьэюя"


def test_alphabets_are_whole():
    assert LETTERS["en"] == string.ascii_lowercase
    assert LETTERS["ru"] == RUSSIAN_ALPHABET
    assert len(set(RUSSIAN_ALPHABET)) == 33


@pytest.mark.parametrize("language", LETTERS)
def test_first_two_numbers_are_padding_and_end(language):
    table = SymbolTable.for_language(language)
    assert table.symbols[:2] == ("_", "~")
    assert len(set(table.symbols)) == len(table) == 2 + len(PUNCTUATION) + len(LETTERS[language])


@given(st.data(), st.sampled_from(["en", "ru"]))
def test_decoding_undoes_encoding(data, language):
    table = SymbolTable.for_language(language)
    text = data.draw(st.text(alphabet=PUNCTUATION + LETTERS[language]))
    ids = table.encode(text)
    assert ids[-1] == 1
    assert len(ids) == len(text) + 1
    assert min(ids[:-1], default=2) >= 2
    assert table.decode(ids) == text
    assert table.decode([*ids, 0, 0]) == text


@pytest.mark.parametrize("character", ["ж", "_", "~", "\U0001f600", "3"])
def test_unknown_character_is_named_with_its_text(character):
    with pytest.raises(UnknownSymbolError, match=f"U\\+{ord(character):04X}.*well {character} done") as caught:
        SymbolTable.for_language("en").encode(f"well {character} done")
    assert isinstance(caught.value, DataError)
    assert caught.value.character == character


def test_unknown_language_names_the_known():
    with pytest.raises(UsageError, match=r"'de'.*en, ru"):
        SymbolTable.for_language("de")


def test_fingerprint_depends_on_the_order():
    assert SymbolTable(("_", "~", "a", "b")).fingerprint != SymbolTable(("_", "~", "b", "a")).fingerprint
    assert SymbolTable.for_language("ru").fingerprint == SymbolTable.for_language("ru").fingerprint


def test_latin_letter_in_russian_text_is_refused_by_name():
    with pytest.raises(UnknownSymbolError, match=r"'c' \(U\+0063\)"):
        text_to_symbols("раcсвет", TextConfig(language="ru"))


def test_dropping_counts_and_closes_the_gap():
    encoded = text_to_symbols("Wait * for \u2020 me", TextConfig(unknown_symbol="drop"))
    assert encoded.text == "wait for me"
    # Two signs; of the spaces around each, one goes too.
    assert encoded.dropped == 2
    assert encoded.symbols == SymbolTable.for_language("en").encode("wait for me")


@pytest.mark.parametrize(
    ("written", "kept"), [("rock\u2022roll", "rock roll"), ("ж\u20dd\u0306a", "a"), ("wait\u20dd ing", "wait ing"), ("wa\u20ddit", "wait")]
)
def test_dropping_fuses_no_words_and_parts_none(written, kept):
    assert text_to_symbols(written, TextConfig(unknown_symbol="drop")).text == kept


def test_cyrillic_survives_whole():
    pangram = "Съешь же ещё этих мягких французских булок, да выпей чаю; эй, жлоб! Где туз? Прячь юных съёмщиц в шкаф."
    encoded = text_to_symbols(pangram, TextConfig(language="ru"))
    assert encoded.text == pangram.lower()
    assert set(encoded.text) >= set(RUSSIAN_ALPHABET)
    assert encoded.dropped == 0


@pytest.mark.parametrize("language", LETTERS)
def test_letters_are_spoken_and_nothing_else(language):
    table = SymbolTable.for_language(language)
    assert "".join(table.symbols[number] for number in table.spoken) == LETTERS[language]
