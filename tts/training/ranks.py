"""The processes that train one network together, one a device: its ranks.

Rank 0 leads: it alone reads and writes the run's folder, validates, and decides. The others make the same updates on their parts of the same
batches. Whatever an update depends on is a sum over all ranks, so that all hold the same weights without ever exchanging them after the start.

Two groups connect them. Sums of a step go over NCCL between GPUs and over gloo between CPUs. Words (go on, stop, it is over) go over gloo
always: who waits there for rank 0 to validate may wait for hours, while NCCL gives up after ten minutes. A word is exchanged before each step,
so no rank waits in NCCL for one that is still busy elsewhere.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tts.errors import TtsError
from tts.training.preemption import StopFlag

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""For a word from rank 0. One that is gone closes its connections, so this ends nothing but a freeze."""

GO, GO_BACK, DIVERGED, OVER = 0, 200, 300, 1000
"""Words that are no signal's number. The highest that any rank says is heard by all. GO_BACK: rank 0 begins anew from a state that it gives next."""


class LostRankError(TtsError):
    """Another process of the same training is gone; the same command goes on from the last checkpoint."""

    exit_code = 75


class Ranks:
    """This process among those that train together; all methods but `leads` are called by all of them, in the same order."""

    def __init__(self, rank: int = 0, count: int = 1, *, here: int = 1) -> None:
        """Of `count` ranks, `here` are on this machine. More than one need torch's process group to be there (joining.py)."""
        self.rank, self.count, self.here = rank, count, here
        self.over = False
        """Rank 0 has said that there is nothing left to do."""
        self.heard = GO
        """The last word on which all agreed."""
        self._amid_step = False
        self._words = _group_of_words() if count > 1 else None

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes and decides."""
        return self.rank == 0

    @property
    def together(self) -> bool:
        """Whether there are others."""
        return self.count > 1

    def begin(self, state: dict[str, Any], device: torch.device) -> None:
        """Rank 0 gives the others what it starts from."""
        if self.together:
            self._exchange(GO)
            with self.step():
                self._share(state, device)

    def begun(self, device: torch.device) -> dict[str, Any] | None:
        """What rank 0 starts from, on `device`; None where it has nothing to do."""
        if self._exchange(GO) == OVER:
            self._heard()
            return None
        with self.step():
            return self._share(None, device)

    def agree(self, stop: StopFlag, say: int = GO) -> bool:
        """Whether to make no further step: if any rank was asked to stop, then all are now, for the same reason; or it is over.

        Rank 0 may say GO_BACK, before which a stop waits its turn, or DIVERGED; who follows finds it in `heard`.
        """
        if not self.together:
            return bool(stop)
        self.heard = self._exchange(max(say, stop.word))
        if self.heard == OVER:
            self._heard()
        elif self.heard not in (GO, GO_BACK, DIVERGED):
            stop.hear(self.heard)
        return self.heard not in (GO, GO_BACK)

    def end(self) -> None:
        """The last word of rank 0, for which the others wait here if they have nothing else to do. Says nothing where it would not be heard."""
        if self.together and not self.over and not self._amid_step:
            with suppress(LostRankError):
                while self._exchange(OVER if self.leads else GO) != OVER:
                    pass
                self._heard()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around what all ranks do at once. After an error inside, the others may wait for this rank: it has to end. Raises LostRankError."""
        self._amid_step = True
        try:
            yield
        except RuntimeError as error:
            if self.together and _is_lost(error):
                raise _lost(error) from error
            raise
        self._amid_step = False

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, bit for bit the same on each; written over `tensor`."""
        if self.together:
            dist.all_reduce(tensor)
        return tensor

    def add_with_gradient(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, for a place inside the network: what it is worth to any rank's loss flows back to all."""
        added: Tensor = _Added.apply(tensor)
        return added

    def any(self, flags: list[bool]) -> list[bool]:
        """Where at least one rank has True."""
        counts = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(counts, dist.ReduceOp.MAX, group=self._words)
        return [bool(count) for count in counts.tolist()]

    def _share(self, content: dict[str, Any] | None, device: torch.device) -> dict[str, Any]:
        """What rank 0 gives, tensors and plain values; on the others, who give None, its tensors are on `device`."""
        buffer = io.BytesIO()
        if content is not None:
            torch.save(content, buffer)
        size = torch.tensor(len(buffer.getbuffer()))
        dist.broadcast(size, 0, group=self._words)
        data = torch.frombuffer(bytearray(buffer.getbuffer()) or bytearray(int(size)), dtype=torch.uint8)
        dist.broadcast(data, 0, group=self._words)
        if content is not None:
            return content
        loaded: dict[str, Any] = torch.load(io.BytesIO(data.numpy().tobytes()), map_location=device, weights_only=True)
        return loaded

    def gather(self, value: T) -> list[T]:
        """What each rank has, in their order."""
        values: list[Any] = [value] * self.count
        if self.together:
            dist.all_gather_object(values, value, group=self._words)
        return values

    def _heard(self) -> None:
        self.over = True
        with suppress(LostRankError):
            self._exchange(OVER)  # rank 0 leaves when everybody has heard it

    def _exchange(self, word: int) -> int:
        words = torch.tensor(word)
        try:
            dist.all_reduce(words, dist.ReduceOp.MAX, group=self._words)
        except RuntimeError as error:
            raise _lost(error) from error
        return int(words)


class _Added(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, tensor: Tensor) -> Tensor:
        added = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(added)
        return added

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        added = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(added)
        return added


def _group_of_words() -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError("this process is not in the group of all processes")
    return group


def _is_lost(error: RuntimeError) -> bool:
    """Whether it tells of a broken connection: torch has no class of its own for gloo's errors."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _lost(error: RuntimeError) -> LostRankError:
    reason = " ".join(str(error).split())[:200]
    return LostRankError(f"another process of this training is gone; the same command goes on from the last checkpoint ({reason})")


ALONE = Ranks()
"""One process that trains by itself."""
