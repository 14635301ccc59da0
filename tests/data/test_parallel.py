import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts.cores import usable_cores
from tts.data.parallel import AHEAD, in_order


@given(st.lists(st.integers(), max_size=60))
def test_results_in_the_order_of_the_items(items):
    assert list(in_order(lambda item: item * 2, items)) == [item * 2 for item in items]


def test_an_error_comes_out_at_its_item():
    results = in_order(lambda item: 6 // item, [1, 2, 0, 3])
    assert next(results) == 6
    assert next(results) == 3
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_few_items_are_ahead_and_closing_ends_the_threads():
    taken = []
    before = threading.active_count()

    def items():
        for item in range(100_000):
            taken.append(item)
            yield item

    with closing(in_order(str, items())) as results:
        assert next(results) == "0"
        assert len(taken) == AHEAD * usable_cores()
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert len(taken) == AHEAD * usable_cores()
