import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tts.model.packing import packing

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=6)


def by_hand(lengths: list[int], steps: int) -> list[tuple[int, int]]:
    """(utterance, step) row by row."""
    order = sorted(range(len(lengths)), key=lambda utterance: -lengths[utterance])
    return [(utterance, step) for step in range(steps) for utterance in order if lengths[utterance] > step]


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS, spare=st.integers(0, 3))
def test_rows_go_by_step_and_falling_length(lengths, spare):
    steps = max(lengths) + spare
    order = packing(torch.tensor(lengths), steps)
    x_BS = torch.arange(len(lengths) * steps).view(len(lengths), steps)
    rows = by_hand(lengths, steps)
    assert order.pack(x_BS).tolist() == [utterance * steps + step for utterance, step in rows]
    assert order.sizes == tuple(size for step in range(steps) if (size := sum(length > step for length in lengths)))
    unpacked_BS = order.unpack(order.pack(x_BS + 1))
    assert unpacked_BS.tolist() == [[int(x_BS[b, s]) + 1 if s < length else 0 for s in range(steps)] for b, length in enumerate(lengths)]


@settings(deadline=None, max_examples=60)
@given(lengths=LENGTHS)
def test_each_row_knows_its_utterances_row_of_the_step_before(lengths):
    order = packing(torch.tensor(lengths), max(lengths))
    rows = by_hand(lengths, max(lengths))
    longest_first = order.order_B.tolist()
    earlier = [(utterance, -1) for utterance in longest_first] + rows
    assert [earlier[before] for before in order.before_Z.tolist()] == [(utterance, step - 1) for utterance, step in rows]
    for number, step in enumerate(order.schedule()):
        assert step.size == order.sizes[number]
        assert rows[step.rows] == earlier[step.after] == [(utterance, number) for utterance in longest_first[: step.size]]
        assert earlier[step.before] == [(utterance, number - 1) for utterance in longest_first[: step.size]]
