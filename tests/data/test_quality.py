import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import QualityConfig
from tts.data.quality import Measures, Rejection, check_clip, check_corpus, refuse_if_too_many, report
from tts.errors import DataError

CONFIG = QualityConfig()
GOOD = Measures(
    id="a", text="fifteen letters", seconds=1.0, trimmed_seconds=0.1, peak=0.5, clipped_share=0.0, digest="0", resampled=False, mixed_down=False,
    dropped_characters=0,
)  # fmt: skip


def many(rates, seconds=1.0):
    """Clips with these rates in characters per second."""
    return [replace(GOOD, id=str(place), text="x" * round(rate * 10), seconds=10 * seconds, digest=str(place)) for place, rate in enumerate(rates)]


def test_a_good_clip_passes():
    assert check_clip(GOOD, CONFIG) is None


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"text": ""}, "empty_text", "''"),
        ({"text": "... -"}, "empty_text", "no letter"),
        ({"peak": 0.0}, "silent", "-200.0 dBFS"),
        ({"peak": 10 ** (-46 / 20)}, "silent", "peak -46.0 dBFS is below quality.silence_dbfs .-45.0."),
        ({"clipped_share": 0.02}, "clipped", "2.0%.*quality.max_clipped_share .1.0%."),
        ({"seconds": 0.39}, "too_short", "0.39 s is below quality.min_seconds"),
        ({"seconds": 15.1}, "too_long", "15.10 s is above quality.max_seconds"),
    ],
)
def test_each_reason(change, reason, detail):
    rejection = check_clip(replace(GOOD, **change), CONFIG)
    assert (rejection.id, rejection.reason) == ("a", reason)
    assert re.search(detail, rejection.detail)


@pytest.mark.parametrize("change", [{"peak": 10 ** (-44 / 20)}, {"clipped_share": 0.01}, {"seconds": 0.4}, {"seconds": 15.0}])
def test_limits_themselves_pass(change):
    assert check_clip(replace(GOOD, **change), CONFIG) is None


def test_far_rates_are_rejected_by_hand_computed_deviations():
    clips = many([14, 15, 15, 16, 16, 17, 40, 2, 14, 17])
    # Median 15.5, absolute deviations 1.5 .5 .5 .5 .5 1.5 24.5 13.5 1.5 1.5, their median 1.5: one robust deviation is 2.2239.
    rejections = check_corpus(clips, CONFIG)
    assert [(rejection.id, rejection.reason) for rejection in rejections] == [("6", "rate_outlier"), ("7", "rate_outlier")]
    assert "40.0 characters a second against a median of 15.5: 11.0 robust deviations" in rejections[0].detail
    assert "6.1 robust deviations" in rejections[1].detail
    assert check_corpus(clips, replace_config(rate_deviations=20)) == []


def replace_config(**values):
    return CONFIG.model_copy(update=values)


def test_even_speech_is_measured_by_a_twentieth_of_its_rate():
    """Median 15, so 0.75 counts as a deviation though nothing deviates: 19 is 5.3 of them, 20 is 6.7."""
    assert [rejection.id for rejection in check_corpus(many([15] * 8 + [19, 20]), CONFIG)] == ["9"]


@pytest.mark.parametrize(("clips", "outliers"), [(9, []), (10, ["0"])])
def test_rates_of_few_clips_are_not_compared(clips, outliers):
    assert [rejection.id for rejection in check_corpus(many([60] + [15] * (clips - 1)), CONFIG)] == outliers
    assert check_corpus([], CONFIG) == []


def test_rates_are_compared_within_a_speaker():
    """20 characters a second are odd for one who says 10, and not for one who says 20; of two clips nobody knows what is odd."""
    slow = [replace(clip, id=f"slow{clip.id}", speaker="slow") for clip in many([10] * 10 + [20])]
    fast = [replace(clip, id=f"fast{clip.id}", speaker="fast", digest=f"f{clip.digest}") for clip in many([20] * 10)]
    seldom = [replace(clip, id=f"seldom{clip.id}", speaker="seldom", digest=f"s{clip.digest}") for clip in many([3, 90])]
    rejections = check_corpus([*slow, *fast, *seldom], CONFIG)
    assert [(rejection.id, rejection.reason) for rejection in rejections] == [("slow10", "rate_outlier")]
    assert "20.0 characters a second against a median of 10.0" in rejections[0].detail


def test_report_says_what_each_speaker_has():
    accepted = [replace(GOOD, speaker="b"), replace(GOOD, id="2", speaker="a", seconds=3.0), replace(GOOD, id="3", speaker="a", seconds=1.5)]
    assert report(accepted, [])["speakers"] == {
        "a": {"accepted": 2, "seconds": 4.5, "characters_per_second": 7.5},
        "b": {"accepted": 1, "seconds": 1.0, "characters_per_second": 15.0},
    }
    assert "speakers" not in report([GOOD], [])


@given(st.lists(st.floats(1, 100), min_size=10, max_size=30))
def test_at_most_half_are_outliers(rates):
    assert len(check_corpus(many(rates), CONFIG)) <= len(rates) / 2


def test_duplicates_share_text_and_sound():
    twin = replace(GOOD, id="b")
    other_text, other_sound = replace(GOOD, id="c", text="fifteen lettuce"), replace(GOOD, id="d", digest="1")
    rejections = check_corpus([GOOD, twin, other_text, other_sound], CONFIG)
    assert rejections == [Rejection("b", "duplicate", "text and sound are those of 'a'")]


def test_refusal_counts_and_gives_an_example_of_the_commonest():
    rejections = [Rejection("a", "silent", "peak"), Rejection("b", "silent", "peak"), Rejection("c", "too_long", "16 s")]
    refuse_if_too_many(rejections, 12, CONFIG)
    with pytest.raises(DataError, match=r"3 of 11 clips are rejected.*max_rejected_share \(25%\).*2 silent \(such as a: peak\); 1 too_long"):
        refuse_if_too_many(rejections, 11, CONFIG)


def test_nothing_rejected_is_never_too_many():
    refuse_if_too_many([], 0, replace_config(max_rejected_share=0.0))


def test_report_counts():
    accepted = [GOOD, replace(GOOD, id="b", resampled=True, mixed_down=True, dropped_characters=3, trimmed_seconds=0.0, seconds=2.0)]
    written = report(accepted, [Rejection("c", "clipped", "why")])
    assert written["accepted"] == 2
    assert written["rejected"] == [{"id": "c", "reason": "clipped", "detail": "why"}]
    assert written["counts"] == {
        "unreadable": 0, "empty_text": 0, "unknown_symbol": 0, "silent": 0, "clipped": 1, "too_short": 0, "too_long": 0, "rate_outlier": 0,
        "duplicate": 0, "resampled": 1, "mixed_down": 1, "dropped_characters": 3, "trimmed": 1, "repeated_texts": 1,
    }  # fmt: skip
    assert written["seconds"] == 3.0
    assert written["trimmed_seconds"] == 0.1
    assert written["characters_per_second"] == np.median([15, 7.5])
