"""English: numbers, abbreviations and signs into words.

Ambiguous writing is read as prose usually is: 1100 to 2099 as years ("nineteen eighty-four"), "St." after a name as "street" and else as
"saint", 3/4 as a fraction, 10-20 as "ten to twenty". Dates in digits are American, month first: 1/2/1999 is January 2nd; only 25/12/1999, which
cannot be, is read day first. "No." before a digit is "number", but "no." after a verb of saying is the answer and ends its sentence. A plain
space groups thousands only where the groups show it (10 000, 1 234 567). 24:00 is "twenty-four hundred", like 14:00. Accents are taken off
Latin letters (café, cafe), as English itself does.
"""

import re
import unicodedata

from num2words import num2words

from tts.text import english_forms as forms
from tts.text.numbers import LONGEST_NUMBER, Rule, apply, cardinal, either, one_by_one

FRACTIONS = str.maketrans({"½": " 1/2", "¼": " 1/4", "¾": " 3/4", "⅓": " 1/3", "⅔": " 2/3"})
LIGATURES = str.maketrans({"æ": "ae", "Æ": "Ae", "œ": "oe", "Œ": "Oe", "ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L"})

_NUMBER = r"(?<!\d)(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d++(?:\.\d++)?)"
_NAME = r"\b(?!(?:The|This|That|An?|My|Our|Your|His|Her|Their|Is|Was|If|When|And|But) )([A-Z]\w+ )"
_SAYING = ("said", "say", "says", "answered", "answers", "replied", "replies", "shouted", "whispered", "cried", "meant", "means", "voted", "or")
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
    one, many, small_one, small_many = forms.CURRENCIES[match["sign"]]
    amount, scale = match["amount"], match["scale"] or forms.SCALES.get(match["short"] or "")
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


def _date(match: re.Match[str]) -> str:
    month, day = int(match[1]), int(match[2])
    if month > 12 >= day:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{forms.MONTH_NAMES[month - 1]} {num2words(day, lang='en', to='ordinal')}, {num2words(int(match[3]), lang='en', to='year')}"


def _telephone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    if len(groups) == 2 and match[0][0] != "(" and all(group.endswith("0") for group in groups) and groups[1][0] != "0":
        return match[0]  # 500-1000 is a range: round numbers
    return ", ".join(one_by_one(group, "en") for group in groups)


def _year(match: re.Match[str]) -> str:
    return str(num2words(int(match[0]), lang="en", to="year"))


def _decade(match: re.Match[str]) -> str:
    words = str(num2words(int(match[1]), lang="en", to="year" if len(match[1]) == 4 else "cardinal"))
    return f"{words[:-1]}ies" if words.endswith("y") else f"{words}s"


def _fraction(match: re.Match[str]) -> str:
    whole = f"{cardinal(match['whole'], 'en')} and " if match["whole"] else ""
    above, below = int(match["above"]), int(match["below"])
    if above >= below or below not in forms.DENOMINATORS:
        return match[0].replace("/", " ")
    part = {2: "half", 4: "quarter"}.get(below) or str(num2words(below, lang="en", to="ordinal")).removeprefix("one ")
    plural = "halves" if part == "half" else f"{part}s"
    return f"{whole}{cardinal(match['above'], 'en')} {part if above == 1 else plural}"


def _no(match: re.Match[str]) -> str:
    if not match["saying"]:
        return "number "
    return match[0] if match["no"] == "no" else f"{match['saying']} number "


def _unit(match: re.Match[str]) -> str:
    first, *rest = forms.UNITS[match["unit"]].split(" ")
    one = "foot" if first == "feet" else first.removesuffix("s")
    dot = "." if match["dot"] and (match["end"] is not None or (match["unit"] not in forms.DOTTED_UNITS and match["goes_on"] is None)) else ""
    return " ".join([number(match["amount"]), one if match["amount"] == "1" else first, *rest]) + dot


def _range(match: re.Match[str]) -> str:
    return f"{match[1]}{' to ' if int(match[1]) < int(match[2]) else ' '}{match[2]}"


def _abbreviation(names: dict[str, str], after: str = "", keep: str = "") -> Rule:
    pattern = re.compile(rf"(?<![\w.])({either(names)})\.{after}", re.IGNORECASE)
    return pattern, lambda match: names[match[1].lower()] + keep


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_RULES: list[Rule] = [
    (_rule(r"(?<![\w/.])(\d\d?)/(\d\d?)/([12]\d{3})(?![\w/])"), _date),
    (_rule(r"(?<![\w.,-])(?:\+?1[- ])?(?:\(\d{3}\) ?|\d{3}[- ])?\d{3}-\d{4}(?![\w-]|[.,]\d)"), _telephone),
    # "7 a.m." and "7pm": before abbreviations, which would take the dots.
    (_rule(rf"(?<=\d)\s*([apAP])\.[mM]\.{_ENDS_SENTENCE}"), r" \1 m."),
    (_rule(r"(?<=\d)\s*([apAP])\.[mM]\."), r" \1 m"),
    (_rule(r"(?<=\d)\s*([apAP])[mM]\b"), r" \1 m"),
    (_rule(rf"(?<![\d.,:-])(\d{{1,15}})[-\u2014](?=\d+(?:\.\d+)?\s?(?:{either(forms.UNITS)})(?![\w/°]))"), r"\1 to "),
    (_rule(r"(?<=\d)[-\u2014](?=[$£€]\d)"), " to "),
    # Before units and money, whose words would part the sign from its number.
    (_rule(r"(?<![\w)%])-(?=[$£€]?\.?\d)"), "minus "),
    (_rule(r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: \d{3}){2,}|(?: 0\d\d)+)(?!\d| \d)"), lambda match: match[0].replace(" ", ",")),
    (
        _rule(rf"(?P<sign>[$£€])\s?(?P<amount>{_NUMBER})(?:(?:\s(?P<scale>thousand|million|billion|trillion)|(?P<short>k|m|bn))\b)?"),
        _money,
    ),
    (_rule(rf"(?P<amount>{_NUMBER})\s?(?P<sign>[$£€])(?P<scale>)(?P<short>)"), _money),
    (
        _rule(
            rf"(?P<amount>{_NUMBER})\s?(?P<unit>{either(forms.UNITS)})(?![\w/°]|\.\w)(?P<dot>\.)?(?P<end>{_ENDS_SENTENCE})?(?P<goes_on>(?=\s+[a-z]))?"
        ),
        _unit,
    ),
    # Streets follow a name and are followed by no other name.
    (_rule(rf"{_NAME}(St|Dr)\.(?=\s*$)"), lambda match: f"{match[1]}{forms.STREETS[match[2].lower()]}."),
    (_rule(rf"{_NAME}(St|Dr)\.(?=,|\s+[a-z])"), lambda match: match[1] + forms.STREETS[match[2].lower()]),
    (_rule(r"\b(Mr|Mrs|Ms|Messrs|Dr|Prof)(?=\s+[A-Z])"), lambda match: forms.TITLES[match[1].lower()]),
    (_rule(rf"\b(?:(?P<saying>{either(_SAYING)}) )?(?P<no>[Nn]o)\.\s?(?=\d)"), _no),
    _abbreviation(forms.BEFORE_NUMBERS, after=r"\s?(?=\d)", keep=" "),
    (re.compile(rf"(?<![\w.])({either(forms.MONTHS)})\.?(?=\s\d)", re.IGNORECASE), lambda match: forms.MONTHS[match[1].lower()]),
    _abbreviation(forms.TITLES),
    _abbreviation(forms.LAST_WORDS, after=_ENDS_SENTENCE, keep="."),
    _abbreviation(forms.LAST_WORDS),
    (_rule(rf"\b({either(forms.MONTH_NAMES)}) ([12]?\d|3[01])(?![\w%]|[:.,/-]\d| [ap] m\b)"), _day),
    (_rule(r"(?<=:\d\d)[-\u2014](?=\d)"), " to "),
    (_rule(r"(?<![\d:])(?P<hour>[01]?\d|2[0-3]|24(?=:00)):(?P<minute>[0-5]\d)(?P<half> [apAP] m\b)?(?![\d:])"), _time),
    (re.compile(r"\b(\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.IGNORECASE), _ordinal),
    (_rule(r"(?<!\w)'?((?:1[1-9]|20)\d0|[1-9]0)'?s\b"), _decade),
    (_rule(r"(?<![\d/.,])(?:(?P<whole>\d+) +)?(?P<above>[1-9]\d?)/(?P<below>[1-9]\d{0,2})(?![\d/])"), _fraction),
    (_rule(r"(?<![\d.,-])(\d{1,15})[-\u2014](\d{1,15})(?![\d-]|[.,]\d)"), _range),
    (_rule(r"(?<=\d)[-/\u2014](?=\d)"), " "),
    (_rule(r"#\s?(?=\d)"), "number "),
    (_rule(r"(?<![\w.])\.(?=\d)"), "0."),
    (_rule(r"(?<!\d)\d++(?:\.\d++){2,}"), lambda match: " point ".join(cardinal(part, "en") for part in match[0].split("."))),
    (_rule(r"(?<![\d,.])(?:1[1-9]|20)\d\d(?!\d|[,.]\d)"), _year),
    # A number that touches a letter is a word of its own.
    (_rule(rf"(?<=[^\W\d_])(?={_NUMBER})"), " "),
    (_rule(rf"{_NUMBER}(?=([^\W\d_])?)"), lambda match: number(match[0]) + (" " if match[1] else "")),
    # and/or
    (_rule(r"(?<=\w)\s?/\s?(?=\w)"), " "),
    (_rule(r"\s?%"), " percent"),
    (_rule(r"\s?&\s?"), " and "),
    (_rule(r"\s?@\s?"), " at "),
    (_rule(r"\s?\+\s?"), " plus "),
    (_rule(r"\s?=\s?"), " equals "),
    (_rule(r"\s?\u00d7\s?"), " times "),
]
