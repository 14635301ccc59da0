"""Ranks as real processes that meet over gloo: what each of them does in a test, and how they are started."""

import multiprocessing
import os
import signal
import traceback
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.amp.grad_scaler import GradScaler

from tts.config.load import from_mapping
from tts.data.store import FeatureStore
from tts.training.joining import Place, joined
from tts.training.loop import follow, train
from tts.training.preemption import StopFlag, listen
from tts.training.together import norms
from tts.training.updates import Updates

SECONDS = 120
"""After which a test that hangs fails."""


class Group:
    """`count` processes that run `function(ranks, *arguments)`; it has to be a function of a module."""

    def __init__(self, count, function, *arguments, device="cpu"):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._folder = TemporaryDirectory()
        meeting = f"file://{self._folder.name}/meeting"
        self.results, theirs = zip(*(context.Pipe(duplex=False) for _ in range(count)), strict=True)
        self.processes = []
        for rank, pipe in enumerate(theirs):
            place = Place(rank, count, here=count, device=rank, meeting=meeting)
            process = context.Process(target=_main, args=(pipe, place, device, function, arguments))
            process.start()
            pipe.close()
            self.processes.append(process)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def result(self, rank):
        """What the function returned, or the name of the error and its message. None where the process died without a word."""
        assert self.results[rank].poll(SECONDS), f"rank {rank} hangs"
        with suppress(EOFError):
            return self.results[rank].recv()


def run(count, function, *arguments, device="cpu"):
    """The results of all ranks."""
    with Group(count, function, *arguments, device=device) as group:
        return [group.result(rank) for rank in range(count)]


def _main(pipe: Connection, place: Place, device, function, arguments):
    torch.set_num_threads(1)
    try:
        with joined(place, device) as ranks:
            result = function(ranks, *arguments)
    except BaseException as error:  # noqa: BLE001  # told to the test, whatever it is
        traceback.print_exc()
        result = (type(error).__name__, str(error))
    pipe.send(result)


def updates(ranks, features: Path, cases: list[dict], steps: int, folder: Path, spoil=None):
    """Makes the first updates under several configurations, in float64; what each step came to. Leaves tensors in `folder`."""
    return [_updates(ranks, features, values, steps, folder / f"case-{case}-rank-{ranks.rank}.pt", spoil) for case, values in enumerate(cases)]


def _updates(ranks, features, values, steps, path, spoil):
    made = Updates(FeatureStore.open(features), from_mapping(values, "test"), ranks)
    made.model.double()
    if spoil:
        spoil(made, ranks)
    results, gradients = [], []
    for _ in range(steps):
        result, batch = made.make()
        figures = {name: value for name, value in result.figures().items() if name != "learning_rate"}
        results.append({"figures": figures, "utterances": batch.ids, "anomaly": result.anomaly, "overflow": result.overflow})
        gradients.append({name: parameter.grad.cpu() for name, parameter in made.model.named_parameters() if parameter.grad is not None})
    weights = {name: value.detach().cpu() for name, value in made.model.state_dict().items()}
    torch.save((weights, gradients), path)  # large tensors do not go through a pipe
    return results


def left(folder: Path, case: int, rank: int):
    """Weights with statistics, and the gradients of each step, that `updates` left."""
    return torch.load(folder / f"case-{case}-rank-{rank}.pt")


def own_statistics(made, _ranks):
    """Batch norm as each rank alone would have it."""
    for norm in norms(made.model):
        norm.over_ranks = None


def infinite_gradient(made, ranks):
    """On the last rank alone."""
    if ranks.rank == ranks.count - 1:
        made.model.encoder.lstm.weight_hh_l0.register_hook(lambda gradient: gradient * torch.inf)


def infinite_module(made, ranks):
    """In the second row of the last rank's part."""

    def spoil(_module, _inputs, output):
        output = output.clone()
        output[1] = torch.inf
        return output

    if ranks.rank == ranks.count - 1:
        made.model.encoder.embedding.register_forward_hook(spoil)


def out_of_memory(made, ranks):
    """On the last rank alone, in the middle of the network."""

    def fail(_module, _inputs, _output):
        raise torch.OutOfMemoryError("as a device says it")

    if ranks.rank == ranks.count - 1:
        made.model.decoder.register_forward_hook(fail)


def bold_scaler(made, _ranks):
    """A gradient scaler that has to come down first."""
    made.model.float()
    made._learner = replace(made._learner, scaler=GradScaler("cpu", init_scale=2.0**127))


def whole_run(ranks, features: Path, values: dict, run: Path, acts: dict | None = None):
    """Trains in a folder, as the program does. `acts` says what who leads does on arriving at a step: "leave", or (rank, signal) to send."""
    stop = StopFlag()
    with listen(stop):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        store, config = FeatureStore.open(features), from_mapping(values, "test")
        pids = ranks.gather(os.getpid())
        if not ranks.leads:
            return follow(store, config, stop=stop, ranks=ranks)
        progress = _Acting({step: act for step, act in (acts or {}).items() if act != "leave"}, pids)
        steps = []
        with closing(train(store, config, run, progress=progress, stop=stop, ranks=ranks)) as records:
            for record in records:
                steps.append(record.step)
                if (acts or {}).get(record.step) == "leave":
                    break
        return steps


class _Acting:
    """Progress that sends signals to ranks."""

    def __init__(self, acts, pids):
        self.acts, self.pids = acts, pids

    @contextmanager
    def task(self, _title, total, done=0):
        self.done = done
        yield self

    def advance(self, steps=1, **_figures):
        self.done += steps
        if self.done in self.acts:
            rank, number = self.acts[self.done]
            os.kill(self.pids[rank], number)
