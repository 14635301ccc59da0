"""The whole way from a transcript to the numbers that the network reads."""

import unicodedata
from dataclasses import dataclass

from tts.config import TextConfig
from tts.text.normalise import collapse_whitespace, normalise
from tts.text.symbols import SymbolTable


@dataclass(frozen=True)
class Encoded:
    """A transcript as the network reads it."""

    text: str
    """Normalised text, exactly what `symbols` spells."""
    symbols: list[int]
    """Numbers in the symbol table, end of sequence included."""
    dropped: int
    """Characters left out because text.unknown_symbol is drop."""


def text_to_symbols(text: str, config: TextConfig) -> Encoded:
    """Normalises and encodes one transcript. Raises UnknownSymbolError unless config.unknown_symbol is drop."""
    table = SymbolTable.for_language(config.language)
    normalised = normalise(text, config.language)
    dropped = 0
    if config.unknown_symbol == "drop":
        unknown = {character for character in normalised if character not in table.numbers}
        dropped = sum(character in unknown for character in normalised)
        # A space keeps the words around a sign apart; a combining mark stands within a word, which stays whole.
        gaps = {ord(character): "" if unicodedata.category(character).startswith("M") else " " for character in unknown}
        normalised = collapse_whitespace(normalised.translate(gaps))
    return Encoded(normalised, table.encode(normalised), dropped)
