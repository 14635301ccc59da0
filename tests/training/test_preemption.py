import os
import signal

import pytest
from torch.nn.modules.module import register_module_forward_pre_hook

from tts.config.load import override
from tts.errors import PreemptedError
from tts.model.tacotron2 import Tacotron2
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints
from tts.training.loop import train
from tts.training.metrics_log import read_metrics
from tts.training.preemption import MEMORY, ShortOfMemoryError, StopFlag, TooLittleMemoryError, listen
from tts.training.run_folder import read_state


@pytest.mark.parametrize(("number", "error"), [(signal.SIGTERM, PreemptedError), (signal.SIGINT, KeyboardInterrupt)])
def test_the_first_signal_only_sets_the_flag(number, error):
    with listen() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
    assert isinstance(stop.error(7), error)
    assert "step 7" in str(stop.error(7))


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_another_signal_interrupts_at_once(first):
    with listen() as stop:
        os.kill(os.getpid(), first)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.signal is first


def test_sigterm_twice_is_still_one_request():
    with listen() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal is signal.SIGTERM


def test_the_handlers_from_before_are_put_back_even_after_an_error():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(ValueError, match="inside"), listen(StopFlag()):
        raise ValueError("inside")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_it_is_the_callers_flag_that_is_set():
    mine = StopFlag()
    with listen(mine) as stop:
        assert stop is mine
        os.kill(os.getpid(), signal.SIGTERM)
    assert mine


def test_a_signal_goes_before_memory_that_is_short():
    stop = StopFlag()
    stop.shorten("memory is short: 9 of 10 bytes")
    assert stop
    assert isinstance(stop.error(7), ShortOfMemoryError)
    assert isinstance(stop.error(7, worthwhile=False), TooLittleMemoryError)
    stop.set()
    assert type(stop.error(7, worthwhile=False)) is PreemptedError


@pytest.mark.parametrize("own", [None, signal.SIGINT, signal.SIGTERM, "memory"])
@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM, MEMORY])
def test_all_ranks_end_for_the_reason_on_which_they_agreed(own, word):
    """Whatever one of them had in mind; the highest word is the one agreed on."""
    mine, other = StopFlag(), StopFlag()
    if own == "memory":
        mine.shorten("memory is short: 9 of 10 bytes")
    elif own:
        mine.set(own)
    agreed = max(mine.word, int(word))
    for flag in (mine, other):
        flag.hear(agreed)
    assert type(mine.error(3)) is type(other.error(3))
    assert mine.word == other.word == agreed


def test_before_the_first_step_no_checkpoint_is_claimed():
    stop = StopFlag()
    stop.set()
    assert "before the first step" in str(stop.error(0))


def test_a_stop_in_the_midst_of_a_validation_waits_for_one_batch_and_the_validation_is_made_up_for(store, tiny, tmp_path):
    config = override(tiny, {"training.steps": 2, "training.validation_interval": 2, "data.held_out_max": 3, "data.max_batch_size": 1})
    straight, run = tmp_path / "straight", tmp_path / "run"
    list(train(store, config, straight, progress=Silent(), stop=StopFlag()))
    batches = len(store.held_out)
    begun, stop = [], StopFlag()

    def ask(module, _inputs):
        if isinstance(module, Tacotron2) and not module.training:
            begun.append(module)
            stop.set()

    handle = register_module_forward_pre_hook(ask)
    try:
        with pytest.raises(PreemptedError, match="checkpoint written at step 2"):
            list(train(store, config, run, progress=Silent(), stop=stop))
    finally:
        handle.remove()
    assert len(begun) == 1 < batches
    assert (read_state(run).state, read_state(run).step) == ("preempted", 2)
    assert not [line for line in read_metrics(run / "metrics.jsonl") if line["kind"] == "validation"]
    assert not list((run / "snapshots").glob("*"))

    assert [record.step for record in train(store, config, run, progress=Silent(), stop=StopFlag())] == [2]
    ours, theirs = (
        [{**line, "seconds": 0} for line in read_metrics(one / "metrics.jsonl") if line["kind"] == "validation"] for one in (run, straight)
    )
    assert ours == theirs
    assert Checkpoints(run).index().best == Checkpoints(straight).index().best == 2
