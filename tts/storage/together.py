"""Several requests at a time, in threads that hold nobody up: a process that is stopped while a store hangs ends at once."""

import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from tts.storage.s3 import WORKERS

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def together(act: Callable[[_Given], _Made], things: Iterable[_Given], stop: Callable[[], None] = lambda: None) -> list[_Made]:
    """What `act` makes of each thing, in their order.

    The first error ends it: nothing more is begun, `stop` may hurry what is under way, which is waited for, and the error is raised. An error that a
    signal raises meanwhile, such as KeyboardInterrupt, is not waited for: the threads are left to the process's end.
    """
    given = list(things)
    made: dict[int, _Made] = {}
    errors: list[BaseException] = []
    lock, numbers, ended = threading.Lock(), iter(range(len(given))), threading.Event()

    def work() -> None:
        while not ended.is_set():
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                made[number] = act(given[number])
            except BaseException as error:  # noqa: BLE001  # raised again where it is waited for
                errors.append(error)
                end()

    def end() -> None:
        ended.set()
        stop()

    threads = [threading.Thread(target=work, daemon=True, name="storage") for _ in range(min(WORKERS, len(given)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        end()
        raise
    if errors:
        raise errors[0]
    return [made[number] for number in range(len(given))]
