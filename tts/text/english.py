"""English: numbers, abbreviations and signs into words.

Ambiguous writing is read as prose usually is: 1100 to 2099 as years ("nineteen eighty-four"), "St." after a name as "street" and else as
"saint", 3/4 as a fraction, 10-20 as "ten to twenty". Accents are taken off Latin letters (café, cafe), as English itself does.
"""

import re
import unicodedata

from num2words import num2words

from tts.text.numbers import LONGEST_NUMBER, Rule, apply, cardinal, either, one_by_one

TITLES = {
    "mr": "mister", "mrs": "missus", "ms": "miz", "messrs": "messieurs", "dr": "doctor", "st": "saint", "prof": "professor", "gen": "general",
    "col": "colonel", "capt": "captain", "lt": "lieutenant", "sgt": "sergeant", "maj": "major", "rev": "reverend", "hon": "honourable",
    "gov": "governor", "sen": "senator", "mt": "mount", "ft": "fort", "vs": "versus", "approx": "approximately", "e.g": "for example",
    "i.e": "that is",
}  # fmt: skip
"""Abbreviations whose dot never ends a sentence."""
LAST_WORDS = {
    "etc": "et cetera", "jr": "junior", "sr": "senior", "ltd": "limited", "inc": "incorporated", "co": "company", "corp": "corporation",
    "esq": "esquire", "ave": "avenue", "blvd": "boulevard", "a.m": "a m", "p.m": "p m",
}  # fmt: skip
"""Abbreviations whose dot may end the sentence as well; then it stays."""
STREETS = {"st": "street", "dr": "drive"}
BEFORE_NUMBERS = {"no": "number", "nos": "numbers", "p": "page", "pp": "pages", "vol": "volume", "fig": "figure", "ch": "chapter"}
MONTHS = {
    "jan": "January", "feb": "February", "mar": "March", "apr": "April", "jun": "June", "jul": "July", "aug": "August", "sep": "September",
    "sept": "September", "oct": "October", "nov": "November", "dec": "December",
}  # fmt: skip
CURRENCIES = {"$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"), "€": ("euro", "euros", "cent", "cents")}
SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
UNITS = {
    "km": "kilometres", "m": "metres", "cm": "centimetres", "mm": "millimetres", "km/h": "kilometres per hour", "mph": "miles per hour",
    "ft": "feet", "kg": "kilograms", "g": "grams", "mg": "milligrams", "lb": "pounds", "lbs": "pounds", "oz": "ounces", "l": "litres",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "°C": "degrees celsius", "°F": "degrees fahrenheit",
    "°": "degrees",
}  # fmt: skip
FRACTIONS = str.maketrans({"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3"})
LIGATURES = str.maketrans({"æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})

_NUMBER = r"(?<!\d)(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d++(?:\.\d++)?)"
_ENDS_SENTENCE = r"(?=\s*$|\s+[\"'(]*(?-i:[A-Z]))"


def expand(text: str) -> str:
    """Spells out numbers, signs and common abbreviations; everything else stays."""
    return apply(_RULES, _plain_latin(text.translate(FRACTIONS).translate(LIGATURES)))


def number(written: str) -> str:
    """A number with or without thousands separators and decimals, as words."""
    whole, _, decimals = written.replace(",", "").partition(".")
    words = cardinal(whole, "en")
    return f"{words} point {one_by_one(decimals, 'en')}" if decimals else words


def _plain_latin(text: str) -> str:
    # Marks go only from Latin letters: a letter of another alphabet must reach the error message as it was written.
    bare = re.sub(r"([A-Za-z])[\u0300-\u036f]+", r"\1", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", bare)


def _money(match: re.Match[str]) -> str:
    one, many, small_one, small_many = CURRENCIES[match["sign"]]
    amount, scale = match["amount"], match["scale"] or SCALES.get(match["short"] or "")
    whole, _, decimals = amount.replace(",", "").partition(".")
    if scale:
        return f" {number(amount)} {scale} {many}"
    if len(decimals) != 2:
        return f" {number(amount)} {one if amount == '1' else many}"
    large = f"{number(whole)} {one if whole == '1' else many}"
    small = f"{number(str(int(decimals)))} {small_one if decimals == '01' else small_many}"
    if decimals == "00":
        return f" {large}"
    return f" {small}" if whole == "0" else f" {large} and {small}"


def _time(match: re.Match[str]) -> str:
    hour, minute, half = cardinal(str(int(match["hour"])), "en"), match["minute"], match["half"] or ""
    if minute != "00":
        return f"{hour} {'oh ' if minute[0] == '0' else ''}{cardinal(str(int(minute)), 'en')}{half}"
    if half:
        return f"{hour}{half}"
    return f"{hour} o'clock" if 1 <= int(match["hour"]) <= 12 else f"{hour} hundred"


def _ordinal(match: re.Match[str]) -> str:
    digits = match[1].replace(",", "")
    if len(digits) > LONGEST_NUMBER:
        return f"{one_by_one(digits[:-1], 'en')} {num2words(int(digits[-1]), lang='en', to='ordinal')}"
    return str(num2words(int(digits), lang="en", to="ordinal")).replace(",", "")


def _day(match: re.Match[str]) -> str:
    return f"{match[1]} {num2words(int(match[2]), lang='en', to='ordinal')}"


def _year(match: re.Match[str]) -> str:
    return str(num2words(int(match[0]), lang="en", to="year"))


def _decade(match: re.Match[str]) -> str:
    words = str(num2words(int(match[1]), lang="en", to="year" if len(match[1]) == 4 else "cardinal"))
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _fraction(match: re.Match[str]) -> str:
    whole = f"{cardinal(match['whole'], 'en')} and " if match["whole"] else ""
    above, below = int(match["above"]), int(match["below"])
    if not 0 < above < below <= 100:
        return match[0].replace("/", " ")
    part = {2: "half", 4: "quarter"}.get(below) or str(num2words(below, lang="en", to="ordinal"))
    plural = "halves" if part == "half" else f"{part}s"
    return f"{whole}{cardinal(match['above'], 'en')} {part if above == 1 else plural}"


def _unit(match: re.Match[str]) -> str:
    first, *rest = UNITS[match["unit"]].split(" ")
    one = "foot" if first == "feet" else first.removesuffix("s")
    return " ".join([number(match["amount"]), one if match["amount"] == "1" else first, *rest])


def _range(match: re.Match[str]) -> str:
    return f"{match[1]}{' to ' if int(match[1]) < int(match[2]) else ' '}{match[2]}"


def _abbreviation(names: dict[str, str], after: str = "", keep: str = "") -> Rule:
    pattern = re.compile(rf"(?<![\w.])({either(names)})\.{after}", re.IGNORECASE)
    return pattern, lambda match: names[match[1].lower()] + keep


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_RULES: list[Rule] = [
    # "7 a.m." and "7pm": before abbreviations, which would take the dots.
    (_rule(rf"(?<=\d)\s*([apAP])\.[mM]\.{_ENDS_SENTENCE}"), r" \1 m."),
    (_rule(r"(?<=\d)\s*([apAP])\.[mM]\."), r" \1 m"),
    (_rule(r"(?<=\d)\s*([apAP])[mM]\b"), r" \1 m"),
    (
        _rule(rf"(?P<sign>[$£€])\s?(?P<amount>{_NUMBER})(?:(?:\s(?P<scale>thousand|million|billion|trillion)|(?P<short>k|m|bn))\b)?"),
        _money,
    ),
    (_rule(rf"(?P<amount>{_NUMBER})\s?(?P<sign>[$£€])(?P<scale>)(?P<short>)"), _money),
    (_rule(rf"(?P<amount>{_NUMBER})\s?(?P<unit>{either(UNITS)})(?![\w/°])"), _unit),
    # Streets follow a name and are followed by no other name.
    (_rule(r"\b([A-Z]\w+ )(St|Dr)\.(?=\s*$)"), lambda match: f"{match[1]}{STREETS[match[2].lower()]}."),
    (_rule(r"\b([A-Z]\w+ )(St|Dr)\.(?=,|\s+[a-z])"), lambda match: match[1] + STREETS[match[2].lower()]),
    (_rule(r"\b(Mr|Mrs|Ms|Messrs|Dr|Prof)(?=\s+[A-Z])"), lambda match: TITLES[match[1].lower()]),
    _abbreviation(BEFORE_NUMBERS, after=r"\s?(?=\d)", keep=" "),
    (re.compile(rf"(?<![\w.])({either(MONTHS)})\.?(?=\s\d)", re.IGNORECASE), lambda match: MONTHS[match[1].lower()]),
    _abbreviation(TITLES),
    _abbreviation(LAST_WORDS, after=_ENDS_SENTENCE, keep="."),
    _abbreviation(LAST_WORDS),
    (_rule(rf"\b({either(MONTHS.values())}|May) ([12]?\d|3[01])(?![\w%]|[:.,/-]\d| [ap] m\b)"), _day),
    (_rule(r"(?<=:\d\d)[-\u2014](?=\d)"), " to "),
    (_rule(r"(?<![\d:])(?P<hour>[01]?\d|2[0-3]):(?P<minute>[0-5]\d)(?P<half> [apAP] m\b)?(?![\d:])"), _time),
    (re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE), _ordinal),
    (_rule(r"(?<!\w)'?((?:1[1-9]|20)\d0|[1-9]0)'?s\b"), _decade),
    (_rule(r"(?<![\d/.,])(?:(?P<whole>\d+) +)?(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![\d/])"), _fraction),
    (_rule(r"(?<![\d.,-])(\d{1,15})[-\u2014](\d{1,15})(?![\d-]|[.,]\d)"), _range),
    (_rule(r"(?<=\d)[-/\u2014](?=\d)"), " "),
    (_rule(r"(?<![\w)%])-(?=\.?\d)"), "minus "),
    (_rule(r"#\s?(?=\d)"), "number "),
    (_rule(r"(?<![\w.])\.(?=\d)"), "0."),
    (_rule(r"(?<!\d)\d++(?:\.\d++){2,}"), lambda match: " point ".join(cardinal(part, "en") for part in match[0].split("."))),
    (_rule(r"(?<![\d,.])(?:1[1-9]|20)\d\d(?!\d|[,.]\d)"), _year),
    # A number that touches a letter is a word of its own.
    (_rule(rf"(?<=[^\W\d_])(?={_NUMBER})"), " "),
    (_rule(rf"{_NUMBER}(?=([^\W\d_])?)"), lambda match: number(match[0]) + (" " if match[1] else "")),
    (_rule(r"\s?%"), " percent"),
    (_rule(r"\s?&\s?"), " and "),
    (_rule(r"\s?@\s?"), " at "),
    (_rule(r"\s?\+\s?"), " plus "),
    (_rule(r"\s?=\s?"), " equals "),
    (_rule(r"\s?\u00d7\s?"), " times "),
]
