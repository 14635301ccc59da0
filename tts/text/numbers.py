"""What English and Russian share in reading digits aloud."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from num2words import num2words

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]
LONGEST_NUMBER = 15
"""Digits; longer ones are read one by one, as a person would, and num2words knows no names beyond."""


def apply(rules: Sequence[Rule], text: str) -> str:
    """The text after each rule in turn."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def cardinal(digits: str, language: str, **forms: str) -> str:
    """How many: 1021 is "one thousand and twenty-one". `forms` are num2words' case and gender, for Russian.

    Numbers with leading zeros and very long ones are read digit by digit.
    """
    if len(digits) > LONGEST_NUMBER or (digits[0] == "0" and len(digits) > 1):
        return one_by_one(digits, language)
    return str(num2words(int(digits), lang=language, **forms)).replace(",", "")


def one_by_one(digits: str, language: str) -> str:
    """Each digit by its name."""
    return " ".join(_digit(int(digit), language) for digit in digits)


@cache
def _digit(value: int, language: str) -> str:
    return str(num2words(value, lang=language))


def either(names: Iterable[str]) -> str:
    """A regular expression for any of the names, the longest first."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
