"""Characters that the network reads, numbered."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cache

from tts.errors import DataError, UsageError

PADDING = "_"
END_OF_SEQUENCE = "~"
PUNCTUATION = " !\"'(),-.:;?"
LETTERS = {
    "en": "abcdefghijklmnopqrstuvwxyz",
    "ru": "абвгдеёжзийклмнопрстуфхцчшщъыьэюя",
}


class UnknownSymbolError(DataError):
    """A character that is not in the symbol table."""

    def __init__(self, character: str, text: str) -> None:
        super().__init__(
            f"character {character!r} (U+{ord(character):04X}) is not in the symbol table, in {text!r}; "
            "correct the transcript, set text.language, or set text.unknown_symbol to drop"
        )
        self.character = character
        self.text = text


@dataclass(frozen=True)
class SymbolTable:
    """Symbols by number: 0 pads, 1 ends every sequence, the rest are characters of normalised text."""

    symbols: tuple[str, ...]
    numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {symbol: number for number, symbol in enumerate(self.symbols) if number > 1})

    @staticmethod
    @cache
    def for_language(language: str) -> "SymbolTable":
        """The table of a language. Raises UsageError with the known languages."""
        if language not in LETTERS:
            raise UsageError(f"language {language!r} is not known; choose one of {', '.join(LETTERS)}")
        return SymbolTable((PADDING, END_OF_SEQUENCE, *PUNCTUATION, *LETTERS[language]))

    def encode(self, text: str) -> list[int]:
        """Numbers of the characters of normalised text, and the end-of-sequence symbol. Raises UnknownSymbolError."""
        for character in text:
            if character not in self.numbers:
                raise UnknownSymbolError(character, text)
        return [*(self.numbers[character] for character in text), 1]

    def decode(self, ids: list[int]) -> str:
        """The text of a sequence of numbers; padding and end of sequence are left out."""
        return "".join(self.symbols[number] for number in ids if number > 1)

    @property
    def spoken(self) -> list[int]:
        """Numbers of the symbols that have a sound: not padding, end of sequence, space or punctuation."""
        return [number for symbol, number in self.numbers.items() if symbol not in PUNCTUATION]

    def __len__(self) -> int:
        return len(self.symbols)

    @property
    def fingerprint(self) -> str:
        """Hash of the symbols in their order."""
        return hashlib.sha256(json.dumps(self.symbols).encode()).hexdigest()[:16]
