import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.text.pieces import NUMBERS
from tts.config import TextConfig
from tts.errors import DataError
from tts.text import text_to_symbols
from tts.text.normalise import normalise

READINGS = {
    # abbreviations
    "Mr. and Mrs. Green met Dr. Brown.": "mister and missus green met doctor brown.",
    "Mr Smith, Prof. Jones vs. Capt. Lee": "mister smith, professor jones versus captain lee",
    "St. Paul lived on Elm St. and on Oak Dr.": "saint paul lived on elm street and on oak drive.",
    "tea, coffee, etc. were served": "tea, coffee, et cetera were served",
    "We had tea, etc.": "we had tea, et cetera.",
    "Smith & Co. They left.": "smith and company. they left.",
    "No. 5 said no. Really, e.g. here, i.e. there": "number five said no. really, for example here, that is there",
    "pp. 4-8, vol. 2": "pages four to eight, volume two",
    # how many
    "0 1 21 100 342": "zero one twenty-one one hundred three hundred and forty-two",
    "1,234,567 birds": "one million two hundred and thirty-four thousand five hundred and sixty-seven birds",
    "3.14 and .05": "three point one four and zero point zero five",
    "It is -7 here.": "it is minus seven here.",
    "007": "zero zero seven",
    "version 1.2.3": "version one point two point three",
    "1234567890123456": "one two three four five six seven eight nine zero one two three four five six",
    "A4 and 3D": "a four and three d",
    # years and dates
    "in 1984, 1905, 2000, 2005 and 2015": "in nineteen eighty-four, nineteen oh-five, two thousand, two thousand and five and twenty fifteen",
    "the 1990s and the '80s": "the nineteen nineties and the eighties",
    "from 1939-1945": "from nineteen thirty-nine to nineteen forty-five",
    "Jan. 5, March 3rd, May 12": "january fifth, march third, may twelfth",
    "2020-01-15": "twenty twenty zero one fifteen",
    # which one
    "the 1st, 22nd, 3rd and 1,000th": "the first, twenty-second, third and one thousandth",
    # money
    "$5, $1, $1.01, $0.50": "five dollars, one dollar, one dollar and one cent, fifty cents",
    "£2.50 and €10": "two pounds and fifty pence and ten euros",
    "$1,234.00": "one thousand two hundred and thirty-four dollars",
    "$2.5 million, $5m": "two point five million dollars, five million dollars",
    # shares, times, units, signs
    "50%, 10-20%": "fifty percent, ten to twenty percent",
    "1/2, 3/4, 2 1/3, 24/7": "one half, three quarters, two and one third, twenty-four seven",
    "2\u00bd cups": "two and one half cups",
    "at 7:45, 9:05, 10:00 and 14:00": "at seven forty-five, nine oh five, ten o'clock and fourteen hundred",
    "at 7:45 p.m. sharp": "at seven forty-five p m sharp",
    "7am. He left at 5 p.m.": "seven a m. he left at five p m.",
    "5 km, 1 km, 6 ft, 100 km/h, 20\u00b0C": "five kilometres, one kilometre, six feet, one hundred kilometres per hour, twenty degrees celsius",
    "R&D, a@b, 2+2=4, #5": "r and d, a at b, two plus two equals four, number five",
    "It fell to -5 \u00b0C.": "it fell to minus five degrees celsius.",
    "-3 km, a -$5 change, \u22121 ft": "minus three kilometres, a minus five dollars change, minus one foot",
    "150 lbs. and 6 ft. tall": "one hundred and fifty pounds and six feet tall",
    "6 ft. 2 tall, 5 km. away": "six feet two tall, five kilometres away",
    "It weighs 150 lbs. She ran 5 km. It is 6 ft.": "it weighs one hundred and fifty pounds. she ran five kilometres. it is six feet.",
    "at 30 m.p.h. or so": "at thirty miles per hour or so",
    "9/11, 01/02, 5/11, 7/8, 2/100": "nine eleven, zero one zero two, five eleven, seven eighths, two hundredths",
    "call 555-1234 or (212) 555-0100": "call five five five, one two three four or two one two, five five five, zero one zero zero",
    "1-800-555-1234": "one, eight zero zero, five five five, one two three four",
    "500-1000 people": "five hundred to one thousand people",
    "The Dr. is in. 5 Oak Dr. is far.": "the doctor is in. five oak drive is far.",
    "He said no. 5 people left.": "he said no. five people left.",
    "see no. 5, No. 10": "see number five, number ten",
    "10\u2009000, 10\u202f500 and 1\u00a0984 people": "ten thousand, ten thousand five hundred and one thousand nine hundred and eighty-four people",
    "10 000 people, 1 234 567 birds": "ten thousand people, one million two hundred and thirty-four thousand five hundred and sixty-seven birds",
    "on 12/25/1999, 25/12/1999": "on december twenty-fifth, nineteen ninety-nine, december twenty-fifth, nineteen ninety-nine",
    "5-10 km, $5-$10": "five to ten kilometres, five dollars to ten dollars",
    "at 24:00": "at twenty-four hundred",
    "and/or, he / she": "and or, he she",
    # typography and accents
    "a\u00adb\ufeff c\u200bd\u200e": "ab cd",
    "\u201cWell\u201d \u2014 it\u2019s\u2026": '"well" - it\'s...',
    "na\u00efve caf\u00e9, \u0152uvre": "naive cafe, oeuvre",
    "  many\u00a0 spaces\t\n here ": "many spaces here",
}


@pytest.mark.parametrize(("written", "spoken"), READINGS.items())
def test_reading(written, spoken):
    assert normalise(written, "en") == spoken


@pytest.mark.parametrize("spoken", READINGS.values())
def test_reading_again_changes_nothing(spoken):
    assert normalise(spoken, "en") == spoken


@given(st.text(alphabet="abc XYZ 0123456789.,:;-%$/&'", max_size=30))
def test_no_digit_is_left_and_no_digit_is_ignored(text):
    spoken = normalise(text, "en")
    assert not re.search(r"\d", spoken)
    if re.search(r"\d", text):
        assert re.search(
            r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twel|teen|ty|fif|hundred|thousand|fir|hal|quarter|thir", spoken
        )


@given(st.text(max_size=40))
def test_letters_without_a_rule_stay(text):
    """Whatever stands before it, a letter of another alphabet comes out, for the symbol table to refuse."""
    for character in "жщя\u05d0\u4e2d":
        assert character in normalise(f"{text} {character} end", "en")


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ", max_size=40))
def test_plain_words_are_untouched(text):
    assert normalise(text, "en") == " ".join(text.split())


PIECES = [
    *NUMBERS,
    *"abehkmnopst XYZ",
    *" .,:;-%$/&#°'+()\u2014",
    "th",
    "st",
    " km",
    " lbs.",
    ",000" * 120,
    "No. ",
    "Dr. ",
]


@pytest.mark.parametrize("text", ["1" + ",000" * 120 + "th", "9" * 41 + "th", "5" * 5000 + "/2", "1-" + "5" * 5000, "5" * 5000 + " km"])
def test_numbers_beyond_every_name_are_read_all_the_same(text):
    assert not re.search(r"\d", normalise(text, "en"))


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_whatever_is_written_is_read_or_refused_by_name(text):
    """One odd transcript in a corpus of thousands must not end its preparation with a crash."""
    with contextlib.suppress(DataError):
        text_to_symbols(text, TextConfig(language="en"))
