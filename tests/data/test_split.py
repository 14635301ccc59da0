"""Which utterances are held out, whether the corpus names speakers or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.config import DataConfig
from tts.data.split import split

utterances = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["anna", "boris", "vera"])), min_size=2, max_size=60)


@given(
    said=utterances.filter(lambda said: len({text for text, _ in said}) > 1),
    seed=st.integers(0, 100),
    share=st.floats(0.01, 0.49),
    most=st.integers(1, 20),
    named=st.booleans(),
)
def test_texts_stay_together_and_the_share_holds(said, seed, share, most, named):
    texts, speakers = zip(*said, strict=True)
    held_out = split(texts, DataConfig(split_seed=seed, held_out_share=share, held_out_max=most), speakers if named else ())
    here, there = ({text for text, held in zip(texts, held_out, strict=True) if held == side} for side in (True, False))
    assert here
    assert there
    assert not here & there
    fewest = min(texts.count(text) for text in set(texts))
    assert held_out.sum() <= max(fewest, min(most, round(share * len(texts))))


@given(clips=st.integers(4, 40), speakers=st.integers(2, 4), seed=st.integers(0, 100))
def test_each_speaker_is_on_both_sides_where_each_says_texts_of_their_own(clips, speakers, seed):
    """Also one who speaks little."""
    said = [(f"{speaker}:{clip}", str(speaker)) for speaker in range(speakers) for clip in range(2 if speaker == 0 else clips)]
    texts, names = zip(*said, strict=True)
    held_out = split(texts, DataConfig(split_seed=seed, held_out_share=0.4), names)
    for side in (True, False):
        assert {name for name, held in zip(names, held_out, strict=True) if held == side} == set(names)


def test_who_says_one_text_only_is_trained_on():
    texts, names = [f"text {place}" for place in range(20)], ["anna"] * 19 + ["boris"]
    for seed in range(20):
        assert not split(texts, DataConfig(split_seed=seed, held_out_share=0.4), names)[-1]


@pytest.mark.parametrize("speakers", [(), [""] * 40, ["anna"] * 40])
def test_of_one_speaker_it_is_what_it_is_without(speakers):
    texts = [f"text {place % 30}" for place in range(40)]
    assert (split(texts, DataConfig(held_out_share=0.2), speakers) == split(texts, DataConfig(held_out_share=0.2))).all()
