"""Work on several threads whose results come in order, with little of it in memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from tts.cores import usable_cores

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
AHEAD = 4
"""Items under way or waiting for each worker."""


def in_order(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Generator[_Result, None, None]:
    """The function's results in the order of the items, worked out on every core that this process may use.

    An exception of the function comes out at its item. Closing the generator, as an interrupt of the loop does through
    `contextlib.closing`, drops what has not begun.
    """
    workers = usable_cores()
    under_way: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                under_way.append(pool.submit(function, item))
                if len(under_way) >= AHEAD * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
