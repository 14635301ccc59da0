# ruff: noqa: RUF001, RUF002, RUF003 - Cyrillic letters that look like Latin ones are meant
"""Russian: numbers, abbreviations and signs into words.

Stress marks (an acute or grave accent over a vowel) are dropped, their vowel stays; ё and й are letters of their own. Years, dates, ordinals
with an ending (5-го) and counted units agree in case and number; a bare number is masculine nominative, because its noun would have to be
parsed. Latin letters stay, so that the symbol table refuses them by name, except in the numerals of centuries (XIX век).
"""

import re
import unicodedata

from num2words import num2words

from tts.text import russian_forms as forms
from tts.text.numbers import LONGEST_NUMBER, Rule, apply, cardinal, either, one_by_one

_NUMBER = r"(?<!\d)(?:\d{1,3}(?: \d{3})+(?:,\d+)?(?!\d)|\d++(?:[.,]\d++)?)"
_ENDS_SENTENCE = r"(?=\s*$|\s+[\"(]*(?-i:[А-ЯЁ]))"
# A capital after "г." is often a name within the sentence ("22 июня 1941 г. Германия..."); a capital function word is not.
_ENDS_AFTER_YEAR = r"(?=\s*$|\s+(?:Он|Она|Они|Оно|Это|Я|Мы|Вы|Ты|В|Во|На|Но|А|И|С|К|По|За|Из|Тогда|Потом|Затем|Там|Здесь|Когда|После)\b)"
_ROMAN = {"I": 1, "V": 5, "X": 10}
_LONGEST_DECIMALS = 6


def expand(text: str) -> str:
    """Spells out numbers, signs and common abbreviations; everything else stays."""
    return apply(_RULES, _without_stress(text))


def number(written: str, gender: str = "m") -> str:
    """A number with or without thousands separators and decimals, as words in the nominative."""
    whole, _, decimals = written.replace(" ", "").replace(",", ".").partition(".")
    if not decimals:
        return cardinal(whole, "ru", gender=gender)
    if len(whole) > LONGEST_NUMBER or len(decimals) > _LONGEST_DECIMALS or (len(whole) > 1 and whole[0] == "0"):
        return f"{cardinal(whole, 'ru')} запятая {one_by_one(decimals, 'ru')}"
    return str(num2words(f"{whole}.{decimals}", lang="ru"))


def ordinal(value: int, case: str, gender: str) -> str:
    """Which one, in a case (n, g, d, a, i, p) and gender (m, f, n, or p for plural)."""
    plural = gender == "p"
    return str(num2words(value, lang="ru", to="ordinal", case=case, gender="m" if plural else gender, plural=plural, animate=False))


def agreeing(amount: str, words: tuple[str, str, str]) -> str:
    """The form of a counted noun that follows a number; decimals take the genitive singular."""
    digits = amount.replace(" ", "")
    if not digits.isdecimal():
        return words[1]
    last, two = int(digits[-1]), int(digits[-2:])
    if last == 1 and two != 11:
        return words[0]
    return words[1] if last in (2, 3, 4) and two not in (12, 13, 14) else words[2]


def _without_stress(text: str) -> str:
    bare = re.sub(r"([аеиоуыэюя]\u0308?)[\u0301\u0300]", r"\1", unicodedata.normalize("NFD", text), flags=re.IGNORECASE)
    return unicodedata.normalize("NFC", bare)


def _counted(match: re.Match[str]) -> str:
    amount, scale, unit = match["amount"], match["scale"], match["unit"]
    counted = forms.UNITS[scale or unit]
    words = f"{number(amount, _gender(counted))} {agreeing(amount, counted)}"
    if scale:
        words += f" {forms.UNITS[unit][2]}"
    # A dot that belongs to the abbreviation goes, one that ends the sentence stays.
    full_stop = match["end"] is not None or (unit not in forms.DOTTED_UNITS and match["goes_on"] is None)
    return words + ("." if match["dot"] and full_stop else "")


def _gender(words: tuple[str, str, str]) -> str:
    return "f" if words[0].endswith(("а", "я")) else "m"


def _money_sign_first(match: re.Match[str]) -> str:
    amount, scale = match["amount"], match["scale"]
    if scale:
        return f" {number(amount, _gender(forms.UNITS[scale]))} {agreeing(amount, forms.UNITS[scale])} {forms.UNITS[match['unit']][2]}"
    return f" {number(amount)} {agreeing(amount, forms.UNITS[match['unit']])}"


def _year(match: re.Match[str]) -> str:
    before, word = (match["before"] or "").strip().lower(), match["word"]
    abbreviated = word in ("г.", "г")
    if before in ("к", "ко"):
        case = "d"
    elif abbreviated:
        case = "p" if before in ("в", "во") else "g" if before in forms.BEFORE_GENITIVE_YEAR else "n"
    else:
        case = {"год": "n", "года": "g", "годом": "i"}.get(word, "p")
    if abbreviated:
        word = forms.YEARS[case] + ("." if match["end"] is not None and word == "г." else "")
    return f"{match['before'] or ''}{ordinal(int(match['year']), case, 'm')} {word}"


def _years(match: re.Match[str]) -> str:
    before, word, dash = (match["before"] or "").strip().lower(), match["word"], match["dash"].strip()
    if word.startswith("гг"):
        case, word = ("p", "годах") if before in ("в", "во") else ("n", "годы")
        word += "." if match["end"] is not None else ""
    else:
        case = {"годы": "n", "годов": "g", "годам": "d", "годами": "i"}.get(word, "p")
    between = "-" if dash in "-\u2014" else dash
    return f"{match['before'] or ''}{ordinal(int(match['first']), case, 'm')} {between} {ordinal(int(match['last']), case, 'm')} {word}"


def _from_year_to_year(match: re.Match[str]) -> str:
    case, word = ("n", "год") if match["until"].lower() == "по" else ("g", "года")
    last = f"{ordinal(int(match['last']), case, 'm')} {word}{'.' if match['end'] is not None else ''}"
    return f"{match['since']} {ordinal(int(match['first']), 'g', 'm')} {match['until']} {last}"


def _date(match: re.Match[str]) -> str:
    month = int(match["month"])
    if not 1 <= month <= 12:
        return match[0]
    return f"{ordinal(int(match['day']), 'g', 'n')} {forms.MONTHS[month - 1]} {ordinal(int(match['year']), 'g', 'm')} года"


def _century(match: re.Match[str]) -> str:
    word = match["word"]
    if word == "в.":
        word = "веке" if (match["before"] or "").strip().lower() in ("в", "во") else "век"
    case, gender = tuple(forms.CENTURIES[word])
    values = [_ROMAN[letter] for letter in match["roman"]]
    # A smaller numeral before a larger one counts down: IX is 10 - 1.
    value = sum(-here if here < after else here for here, after in zip(values, [*values[1:], 0], strict=True))
    return f"{match['before'] or ''}{ordinal(value, case, gender)} {word}"


def _ordinal(match: re.Match[str]) -> str:
    value, ending = int(match[1]), match[2]
    case, gender = tuple(forms.ENDINGS[ending])
    if ending == "е" and value and value % 10 == 0:
        gender = "p"  # 90-е годы
    if ending == "ой" and ordinal(value, "n", "m").endswith("ой"):
        case, gender = "n", "m"  # 2-ой is второй, but 5-ой is пятой
    return ordinal(value, case, gender)


def _few(match: re.Match[str]) -> str:
    """2-х and 2-м: "двух" and "двум", but "второй" in its cases before the nouns that ask for it."""
    noun, plural = match["noun"] or "", match["ending"] == "х"
    if re.fullmatch(forms.AFTER_PLURAL_ORDINALS if plural else forms.AFTER_SINGULAR_ORDINALS, noun):
        words = ordinal(int(match["digits"]), "g" if plural else "p", "p" if plural else "m")
    else:
        words = cardinal(match["digits"], "ru", case="g" if plural else "d")
    return words


def _compound(match: re.Match[str]) -> str:
    """20-летний: the number in the genitive, written as one word with what follows."""
    digits, following = match[1], match[2]
    thousands, rest = divmod(int(digits), 1000)
    words = ""
    if thousands:
        # 1000-летие is тысячелетие, but 1150-летие тысячастопятидесятилетие.
        many = "" if thousands == 1 else cardinal(str(thousands), "ru", case="g").replace(" ", "")
        words = f"{many}тысяч{'а' if rest and thousands == 1 else 'е'}"
    if rest:
        parts = cardinal(str(rest), "ru", case="g").split(" ")
        words += "".join(forms.IN_COMPOUNDS.get(part, part) for part in parts)
    return words + following


def _time(match: re.Match[str]) -> str:
    hour, minute = cardinal(str(int(match[1])), "ru"), match[2]
    return f"{hour} {one_by_one(minute, 'ru') if minute[0] == '0' else cardinal(minute, 'ru')}"


def _fraction(match: re.Match[str]) -> str:
    above, below = int(match[1]), int(match[2])
    if not 0 < above < below <= 100:
        return f"{match[1]} {match[2]}"
    single = above % 10 == 1 and above % 100 != 11
    return f"{cardinal(match[1], 'ru', gender='f')} {ordinal(below, 'n' if single else 'g', 'f' if single else 'p')}"


def _plain(match: re.Match[str]) -> str:
    return number(match[0], "f" if match["noun"] else "m") + (" " if match["letter"] else "")


def _abbreviation(names: dict[str, str], after: str = "", keep: str = "") -> Rule:
    # "т. е." is as common as "т.е."
    written = either(names).replace(r"\.", r"\.\s?").replace(r"\ ", r"\s")
    bare = {name.replace(" ", ""): words for name, words in names.items()}
    pattern = re.compile(rf"(?<![\w.])({written})\.{after}", re.IGNORECASE)
    return pattern, lambda match: bare[re.sub(r"\s", "", match[1].lower())] + keep


def _rule(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


_BEFORE = r"(?P<before>\b[А-Яа-яЁё]+ )?"
_YEAR = r"(?P<year>1\d{3}|20\d\d|[1-9]\d\d(?= году)|[1-9]\d{0,3}(?= ?(?:год[а-я]{0,2}|г\.?) (?:до )?н\. ?э))"
_AMOUNT = rf"(?P<amount>{_NUMBER})"
_SCALE = rf"(?: ?(?P<scale>{either(forms.SCALES)})\b\.?)?"
_RULES: list[Rule] = [
    (_rule(r"(?<!\d)(?P<day>0?[1-9]|[12]\d|3[01])\.(?P<month>\d\d?)\.(?P<year>\d{4})(?!\d)"), _date),
    (_rule(rf"{_BEFORE}\b(?P<roman>[IVX]+) (?P<word>{either(forms.CENTURIES)}|в\.)(?!\w)"), _century),
    (
        _rule(
            r"(?P<since>\b(?:[Сс]о?|[Оо]т)) (?P<first>[1-9]\d{2,3}) (?P<until>по|до) (?P<last>[1-9]\d{2,3}) ?"
            rf"(?:года?(?!\w)|г\.(?P<end>{_ENDS_AFTER_YEAR})?)"
        ),
        _from_year_to_year,
    ),
    (
        _rule(
            rf"{_BEFORE}(?<!\d)(?P<first>[1-9]\d{{2,3}})(?P<dash> ?[-\u2014] ?| и | или )(?P<last>[1-9]\d{{2,3}}) ?"
            rf"(?P<word>гг\.|год(?:ы|ов|ам|ами|ах)(?!\w))(?P<end>{_ENDS_AFTER_YEAR})?"
        ),
        _years,
    ),
    (_rule(rf"{_BEFORE}(?<!\d){_YEAR} ?(?P<word>год|года|году|годом|годе|г\.|г)(?!\w)(?P<end>{_ENDS_AFTER_YEAR})?"), _year),
    (_rule(rf"(?<![\d.,:])([12]?\d|3[01]) ({either(forms.MONTHS)})\b"), lambda match: f"{ordinal(int(match[1]), 'g', 'n')} {match[2]}"),
    (_rule(r"(?<![\d:])([01]?\d|2[0-3]|24(?=:00)):([0-5]\d)(?![\d:])"), _time),
    (_rule(r"(?<![\d.,])(?P<digits>\d{0,14}(?<!1)[2-4])-(?P<ending>х|м)(?!\w)(?=(?: (?P<noun>[а-яё]+))?)"), _few),
    (_rule(r"(?<![\d.,])(\d{0,14}(?<!1)[2-4])-мя(?!\w)"), lambda match: cardinal(match[1], "ru", case="i")),
    (_rule(rf"(?<![\d.,])(\d{{1,15}})-({either(forms.ENDINGS)})(?!\w)"), _ordinal),
    (_rule(r"(?<![\d.,])(\d{1,15})-ти(?!\w)"), lambda match: cardinal(match[1], "ru", case="g")),
    (_rule(r"(?<![\d.,])([1-9]\d{0,3})-([а-яё]{4,})"), _compound),
    (_rule(r"(?<![\d/.,])(\d{1,15})/(\d{1,15})(?![\d/])"), _fraction),
    (_rule(r"(?<=\d)[-\u2014](?=\d)"), " - "),
    (_rule(r"(?<=\d)/(?=\d)"), " "),
    (_rule(r"(?<![\w)%])-(?=(?:[$€£₽] ?)?\d)"), "минус "),
    (_rule(rf"(?P<unit>{either(forms.CURRENCY_SIGNS)}) ?{_AMOUNT}{_SCALE}"), _money_sign_first),
    (
        _rule(rf"{_AMOUNT}{_SCALE} ?(?P<unit>{either(forms.UNITS)})(?![\w/°])(?P<dot>\.)?(?P<end>{_ENDS_SENTENCE})?(?P<goes_on>(?=\s+[а-яё]))?"),
        _counted,
    ),
    (_rule(r"(?<!\w)([гГ])-н(?!\w)"), "господин"),
    (_rule(r"(?<!\w)([гГ])-жа(?!\w)"), "госпожа"),
    _abbreviation(forms.BEFORE_NUMBERS, after=r" ?(?=\d)", keep=" "),
    _abbreviation(forms.LAST_WORDS, after=_ENDS_SENTENCE, keep="."),
    _abbreviation(forms.LAST_WORDS),
    _abbreviation(forms.BEFORE_NAMES, after=" ?(?=(?-i:[А-ЯЁ]))", keep=" "),
    _abbreviation(forms.INSIDE, after=r"(?=\s?[^\s.])"),
    (_rule(r"№ ?"), "номер "),
    (_rule(r"(?<!\d)\d++(?:\.\d++){2,}"), lambda match: " точка ".join(cardinal(part, "ru") for part in match[0].split("."))),
    (_rule(r"(?<!\d)\d++(?:,\d++){2,}"), lambda match: ", ".join(cardinal(part, "ru") for part in match[0].split(","))),
    (_rule(rf"(?<=[^\W\d_])(?={_NUMBER})"), " "),
    (_rule(rf"{_NUMBER}(?=(?P<letter>[^\W\d_])?)(?=(?P<noun> (?:{either(forms.FEMININE_NOUNS)})[а-яё]{{0,3}}\b)?)"), _plain),
    # и/или
    (_rule(r"(?<=\w)\s?/\s?(?=\w)"), " "),
    (_rule(r"\s?%"), " процентов"),
    (_rule(r"\s?&\s?"), " и "),
    (_rule(r"\s?@\s?"), " собака "),
    (_rule(r"\s?\+\s?"), " плюс "),
    (_rule(r"\s?=\s?"), " равно "),
]
