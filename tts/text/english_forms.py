"""English words behind abbreviations, units and signs."""

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
BEFORE_NUMBERS = {"nos": "numbers", "p": "page", "pp": "pages", "vol": "volume", "fig": "figure", "ch": "chapter"}
MONTHS = {
    "jan": "January", "feb": "February", "mar": "March", "apr": "April", "jun": "June", "jul": "July", "aug": "August", "sep": "September",
    "sept": "September", "oct": "October", "nov": "November", "dec": "December",
}  # fmt: skip
MONTH_NAMES = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
CURRENCIES = {"$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"), "€": ("euro", "euros", "cent", "cents")}
SCALES = {"k": "thousand", "m": "million", "bn": "billion"}
UNITS = {
    "km": "kilometres", "m": "metres", "cm": "centimetres", "mm": "millimetres", "km/h": "kilometres per hour", "mph": "miles per hour",
    "ft": "feet", "kg": "kilograms", "g": "grams", "mg": "milligrams", "lb": "pounds", "lbs": "pounds", "oz": "ounces", "l": "litres",
    "m.p.h": "miles per hour",
    "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "°C": "degrees celsius", "°F": "degrees fahrenheit",
    "°": "degrees",
}  # fmt: skip
DOTTED_UNITS = ("ft", "lb", "lbs", "oz", "m.p.h")
"""Units that are written with a dot; behind the others a dot is a full stop, unless a small letter follows."""
DENOMINATORS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 32, 64, 100)
"""What people divide by; two numbers around any other slash are read one after the other (24/7, 9/11)."""
