"""Memory that runs short: what a run does at which share, and that runs that end for it come to their end all the same."""

import logging

import pytest

from tts.config.load import override
from tts.memory import Memory
from tts.progress import Silent
from tts.training.loop import train
from tts.training.memory import LOOK_SECONDS, MemoryWatch, drop_caches
from tts.training.metrics_log import read_metrics
from tts.training.preemption import MEMORY, ShortOfMemoryError, StopFlag, TooLittleMemoryError
from tts.training.run_folder import read_state

SHARE = {"recovery.memory_share": 0.85}
ALWAYS = {"recovery.memory_share": 1e-9}
"""Whatever machine this runs on holds more than that."""


class Machine:
    """Memory and a clock, as a test sets them."""

    def __init__(self, config, *held):
        self.held, self.now, self.looks = list(held), 0.0, 0
        self.watch = MemoryWatch(config, self.read, lambda: self.now)

    def read(self):
        self.looks += 1
        held = self.held.pop(0) if len(self.held) > 1 else self.held[0]
        return Memory(1000, held, held, "this container")

    def step(self, stop, seconds=LOOK_SECONDS):
        self.now += seconds
        self.watch.stepped(stop)


@pytest.mark.parametrize(("held", "stops"), [((849,), False), ((850,), True), ((900, 800), False), ((900, 850), True), ((1200,), True)])
def test_at_the_share_caches_are_dropped_and_if_that_does_not_help_the_run_is_to_stop(tiny, held, stops):
    stop = StopFlag()
    Machine(override(tiny, SHARE), *held).step(stop)
    assert bool(stop) is stops
    assert stop.word == (MEMORY if stops else 0)


def test_that_caches_were_dropped_is_said_once(tiny, caplog):
    machine, stop = Machine(override(tiny, SHARE), 900, 800, 900, 800), StopFlag()
    with caplog.at_level(logging.WARNING):
        machine.step(stop)
        machine.step(stop)
    assert machine.looks == 4
    (said,) = caplog.messages
    assert "900 of the 1000 bytes that this container has are held, 90% (recovery.memory_share 0.85)" in said
    assert not stop


def test_looks_are_rare_however_short_steps_are(tiny):
    machine, stop = Machine(override(tiny, SHARE), 10), StopFlag()
    for _ in range(100):
        machine.step(stop, LOOK_SECONDS / 10)
    assert machine.looks == pytest.approx(10, abs=1)


def test_before_the_first_step_and_without_a_share_nobody_looks(tiny):
    machine, off = Machine(override(tiny, SHARE), 990), Machine(override(tiny, {"recovery.memory_share": 0}), 990)
    stop = StopFlag()
    machine.watch.look(stop)
    off.step(stop)
    assert (machine.looks, off.looks) == (0, 0)
    assert not stop


@pytest.mark.parametrize(("interval", "enough"), [(3, 3), (500, 50)])
def test_a_process_is_worth_its_start_once_it_has_made_so_many_steps(tiny, interval, enough):
    machine, stop = Machine(override(tiny, SHARE | {"training.checkpoint_interval": interval}), 10), StopFlag()
    for _ in range(enough - 1):
        machine.step(stop, 0)
    assert not machine.watch.worthwhile
    machine.step(stop, 0)
    assert machine.watch.worthwhile


def test_dropping_caches_gives_freed_blocks_back_and_may_be_repeated():
    drop_caches()
    drop_caches()


def test_a_run_that_is_always_short_comes_to_its_end_in_fresh_processes(store, tiny, tmp_path):
    """Each attempt makes one step, which is worth it by this configuration; together they leave what one undisturbed run leaves."""
    config = override(tiny, {"training.checkpoint_interval": 1, "training.steps": 3})
    straight, run = tmp_path / "straight", tmp_path / "run"
    list(train(store, config, straight, progress=Silent(), stop=StopFlag()))
    short = override(config, ALWAYS)
    for attempt in (1, 2, 3):
        with pytest.raises(ShortOfMemoryError, match=f"checkpoint written at step {attempt}; the same command goes on from there in a fresh process"):
            list(train(store, short, run, progress=Silent(), stop=StopFlag()))
        assert (read_state(run).state, read_state(run).step) == ("preempted", attempt)
    assert [record.step for record in train(store, short, run, progress=Silent(), stop=StopFlag())] == [3], "all that was left"
    assert read_state(run).state == "finished"

    losses = [[line["loss"] for line in read_metrics(one / "metrics.jsonl")] for one in (straight, run)]
    assert losses[1] == losses[0]


def test_a_run_that_is_short_too_soon_ends_with_what_to_do(store, tiny, tmp_path):
    with pytest.raises(TooLittleMemoryError) as caught:
        list(train(store, override(tiny, ALWAYS), tmp_path / "run", progress=Silent(), stop=StopFlag()))
    assert caught.value.exit_code == 64
    for part in (
        "memory is short: ",
        "recovery.memory_share 1e-09",
        "checkpoint written at step 1, but",
        "data.frame_budget",
        "resources.limits.memory",
    ):
        assert part in str(caught.value)
    assert (read_state(tmp_path / "run").state, read_state(tmp_path / "run").step) == ("preempted", 1)
    goes_on = train(store, tiny, tmp_path / "run", progress=Silent(), stop=StopFlag())
    assert [record.step for record in goes_on] == [3, 6]
