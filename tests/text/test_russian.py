# ruff: noqa: RUF001 - Cyrillic letters that look like Latin ones are meant
import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import TextConfig
from tts.errors import DataError, UsageError
from tts.text import text_to_symbols
from tts.text.normalise import normalise
from tts.text.russian import agreeing

READINGS = {
    # abbreviations
    "Т.е. так, т. к. поздно": "то есть так, так как поздно",
    "книги, письма и т.д.": "книги, письма и так далее.",
    "книги и т. п. лежали": "книги и тому подобное лежали",
    "г. Москва, ул. Мира, д. 5, кв. 12": "город москва, улица мира, дом пять, квартира двенадцать",
    "Он дал им. Дом пуст.": "он дал им. дом пуст.",
    "См. рис. 5": "смотри рисунок пять",
    "г-н Иванов и г-жа Петрова": "господин иванов и госпожа петрова",
    # years and dates
    "в 1984 г. он родился": "в тысяча девятьсот восемьдесят четвёртом году он родился",
    "до 1917 г.": "до тысяча девятьсот семнадцатого года.",
    "к 2000 году": "к двухтысячному году",
    "9 мая 1945 г.": "девятого мая тысяча девятьсот сорок пятого года.",
    "Дом построили в 1894 году.": "дом построили в тысяча восемьсот девяносто четвёртом году.",
    "в 1941-1945 гг.": "в тысяча девятьсот сорок первом - тысяча девятьсот сорок пятом годах",
    "09.05.1945": "девятого мая тысяча девятьсот сорок пятого года",
    "90-е, 1990-х годов": "девяностые, тысяча девятьсот девяностых годов",
    "в XIX веке, XX век, XVIII века": "в девятнадцатом веке, двадцатый век, восемнадцатого века",
    # which one
    "5-й, 5-го, 2-ой, 5-ой, 3-я, 3-е": "пятый, пятого, второй, пятой, третья, третье",
    "20-летний 100-метровый 3-этажный": "двадцатилетний стометровый трёхэтажный",
    # how many
    "21 000 000": "двадцать один миллион",
    "3,14 и 3.14": "три целых четырнадцать сотых и три целых четырнадцать сотых",
    "2 минуты и 1 стол": "две минуты и один стол",
    "мороз -5": "мороз минус пять",
    "1/2, 2/3": "одна вторая, две третьих",
    "10-20": "десять - двадцать",
    "1234567890123456": "один два три четыре пять шесть семь восемь девять ноль один два три четыре пять шесть",
    # money, shares, times, units, signs
    "80 руб. в один конец": "восемьдесят рублей в один конец",
    "Цена 21 руб.": "цена двадцать один рубль.",
    "5 тыс. руб., 2 млн долларов": "пять тысяч рублей, два миллиона долларов",
    "$5, $2,5 млн, 3 \u20ac": "пять долларов, две целых пять десятых миллиона долларов, три евро",
    "1%, 2%, 50%": "один процент, два процента, пятьдесят процентов",
    "7:45, 19:00, 9:05": "семь сорок пять, девятнадцать ноль ноль, девять ноль пять",
    "1 кг, 2,5 кг, 12 кг": "один килограмм, две целых пять десятых килограмма, двенадцать килограммов",
    "1 т, 22 км/ч": "одна тонна, двадцать два километра в час",
    "20 \u00b0C": "двадцать градусов цельсия",
    "\u21165, 2 + 2 = 4": "номер пять, два плюс два равно четыре",
    # letters: stress marks go, their vowels and all other letters stay
    "замо\u0301к, све\u0301чи, э\u0301хо, ё\u0301лка": "замок, свечи, эхо, ёлка",
    "е\u0308лка и и\u0306од": "ёлка и йод",
    "\u00abКавычки\u00bb \u2014 тире": '"кавычки" - тире',
}


@pytest.mark.parametrize(("written", "spoken"), READINGS.items())
def test_reading(written, spoken):
    assert normalise(written, "ru") == spoken


@pytest.mark.parametrize("spoken", READINGS.values())
def test_reading_again_changes_nothing(spoken):
    assert normalise(spoken, "ru") == spoken


@pytest.mark.parametrize(
    ("amount", "form"), [("1", 0), ("2", 1), ("5", 2), ("11", 2), ("12", 2), ("21", 0), ("111", 2), ("1 024", 1), ("2,5", 1), ("0", 2)]
)
def test_agreement(amount, form):
    assert agreeing(amount, ("0", "1", "2")) == str(form)


@given(st.text(alphabet="абв ГДЕ 0123456789.,:;-%$№/", max_size=30))
def test_no_digit_is_left(text):
    assert not re.search(r"\d", normalise(text, "ru"))


@given(st.lists(st.sampled_from([*"абвгдеёжзийклмнопрстуфхцчшщъыьэюя ", *(f"{vowel}\u0301" for vowel in "аеиоуыэюяё")])).map("".join))
def test_every_letter_survives(text):
    assert normalise(text, "ru") == " ".join(text.replace("\u0301", "").split())


def test_an_accent_that_marks_no_stress_stays():
    assert normalise("ќ", "ru") == "ќ"


@given(st.text(max_size=40))
def test_letters_without_a_rule_stay(text):
    for character in "wqѓі\u4e2d":
        assert character in normalise(f"{text} {character} конец", "ru")


def test_unknown_language():
    with pytest.raises(UsageError, match="'fr'"):
        normalise("bonjour", "fr")


PIECES = [
    "0",
    "1",
    "12",
    "1,000",
    "1 000",
    "1984",
    "7" * 16,
    "9" * 41,
    "\u0663",
    *"абвгдлмртхяй ГXIV",
    *" .,:;-%$/&#°'+()\u2014",
    "-го",
    "-х",
    "-этажный",
    " кг",
    " руб.",
    " г.",
    " годах",
    "№",
]


@pytest.mark.parametrize(
    "text", ["1" * 41 + ",25", "1" * 41 + ",25 кг", "5" * 5000 + "/2", "5" * 5000 + " кг", "9" * 15 + "-го", "0-й", "1 " + "000 " * 40 + "км"]
)
def test_numbers_beyond_every_name_are_read_all_the_same(text):
    assert not re.search(r"\d", normalise(text, "ru"))


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_whatever_is_written_is_read_or_refused_by_name(text):
    """One odd transcript in a corpus of thousands must not end its preparation with a crash."""
    with contextlib.suppress(DataError):
        text_to_symbols(text, TextConfig(language="ru"))
