import torch
from hypothesis import given
from hypothesis import strategies as st

from tts.model.frames import decoder_inputs, frames_of_steps, pad_frames, step_count, step_lengths, steps_of_frames

MELS = 3


def numbered(batch: int, frames: int, layout: str) -> torch.Tensor:
    """(B, T, M), every cell a number of its own, none zero, in one of four memory layouts."""
    cells = torch.arange(1.0, batch * frames * MELS + 1).reshape(batch, frames, MELS)
    if layout == "contiguous":
        return cells
    if layout == "transposed":  # as a convolution leaves it: (B, M, T) in memory
        return cells.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "time first":
        return cells.transpose(0, 1).contiguous().transpose(0, 1)
    return cells.repeat_interleave(2, dim=1)[:, ::2]  # every other frame of a longer tensor


shapes = {
    "batch": st.integers(1, 3),
    "frames": st.integers(0, 50),
    "factor": st.integers(1, 8),
    "layout": st.sampled_from(["contiguous", "transposed", "time first", "strided"]),
}


@given(**shapes)
def test_every_frame_has_its_place_in_a_step_and_the_rest_is_zero(batch, frames, factor, layout):
    mel_BTM = numbered(batch, frames, layout)
    steps_BSRM = steps_of_frames(mel_BTM, factor)
    assert steps_BSRM.shape == (batch, (frames + factor - 1) // factor, factor, MELS)
    for b in range(batch):
        for place in range(steps_BSRM.shape[1] * factor):
            expected = mel_BTM[b, place] if place < frames else torch.zeros(MELS)
            assert torch.equal(steps_BSRM[b, place // factor, place % factor], expected)


@given(**shapes)
def test_frames_of_steps_is_the_inverse(batch, frames, factor, layout):
    mel_BTM = numbered(batch, frames, layout)
    there_and_back = frames_of_steps(steps_of_frames(mel_BTM, factor))
    assert torch.equal(there_and_back[:, :frames], mel_BTM)
    assert not there_and_back[:, frames:].any()


@given(**shapes)
def test_a_step_reads_the_last_frame_of_the_step_before(batch, frames, factor, layout):
    mel_BTM = numbered(batch, frames, layout)
    inputs_BSM = decoder_inputs(mel_BTM, factor)
    assert inputs_BSM.shape == (batch, (frames + factor - 1) // factor, MELS)
    for b in range(batch):
        for step in range(inputs_BSM.shape[1]):
            expected = mel_BTM[b, step * factor - 1] if step else torch.zeros(MELS)
            assert torch.equal(inputs_BSM[b, step], expected)


@given(frames=st.lists(st.integers(0, 50), min_size=1, max_size=5), factor=st.integers(1, 8))
def test_step_lengths_are_the_steps_that_hold_a_true_frame(frames, factor):
    counted = [len({t // factor for t in range(count)}) for count in frames]
    assert step_lengths(torch.tensor(frames), factor).tolist() == counted
    assert [step_count(count, factor) for count in frames] == counted


def test_padding_keeps_frames_and_appends_zeros():
    padded = pad_frames(numbered(2, 3, "transposed"), 5)
    assert torch.equal(padded[:, :3], numbered(2, 3, "contiguous"))
    assert padded.shape == (2, 5, MELS)
    assert not padded[:, 3:].any()
