"""Written text into the words that are spoken.

Letters are never lost silently: what has no reading here stays in the text, where the symbol table names it as unknown.
"""

import re
import unicodedata

from tts.errors import UsageError
from tts.text import english, russian

TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2033", '"'),
        **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc\u0060\u00b4", "'"),
        **dict.fromkeys("\u2010\u2011\u2012\u2212", "-"),
        **dict.fromkeys("\u2013\u2014\u2015", "\u2014"),
        "\u2026": "...",
        "[": "(",
        "]": ")",
        # Invisible: byte order mark, zero-width characters, soft hyphen, direction marks.
        **dict.fromkeys("\ufeff\u200b\u200c\u200d\u2060\u00ad\u200e\u200f"),
    }
)
LANGUAGES = {"en": (english.expand, ","), "ru": (russian.expand, " ")}
"""How each language spells out, and how it groups thousands."""
# Spaces that do not break stand inside a number, where an ordinary one might part two.
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:[\u00a0\u2007\u2009\u202f]\d{3})+(?!\d)")


def normalise(text: str, language: str) -> str:
    """Text in the characters of the language's symbol table: numbers, abbreviations and signs spelled out, lower case.

    Raises UsageError for an unknown language.
    """
    if language not in LANGUAGES:
        raise UsageError(f"language {language!r} is not known; choose one of {', '.join(LANGUAGES)}")
    expand, separator = LANGUAGES[language]
    written = unicodedata.normalize("NFC", text).translate(TYPOGRAPHY)
    grouped = _GROUPED.sub(lambda match: re.sub(r"\s", separator, match[0]), written)
    spoken = expand(collapse_whitespace(grouped))
    return collapse_whitespace(spoken.replace("\u2014", " - ").lower())


def collapse_whitespace(text: str) -> str:
    """Runs of any white space become one space; none at the ends."""
    return re.sub(r"\s+", " ", text).strip()
