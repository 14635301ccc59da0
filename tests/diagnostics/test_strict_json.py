"""Numbers that JSON does not have."""

import json
import math

import pytest

from tts.diagnostics.strict_json import from_json, to_json


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def test_any_reader_takes_it_and_the_numbers_come_back():
    text = to_json({"a": [1, math.nan, (math.inf, -math.inf)], "b": {"c": 2.5, "d": None, "e": True, "f": "ы"}})
    values = json.loads(text, parse_constant=refuse)
    assert values == {"a": [1, "NaN", ["Infinity", "-Infinity"]], "b": {"c": 2.5, "d": None, "e": True, "f": "ы"}}
    assert math.isnan(from_json(values["a"][1]))
    assert from_json(values["a"][2][0]) == math.inf
    assert from_json(values["a"][2][1]) == -math.inf
    assert from_json(2.5) == 2.5
    with pytest.raises(ValueError, match="could not convert"):
        from_json("seven")
