"""The attention loop in CUDA graphs: on a GPU its many small kernels take less time than launching them one by one.

Chunks of steps (chunk.py) are captured for each shape of batch, forward and back, and replayed. Shapes are few, as utterances and symbols are
rounded up: what is added is masked, has no part in any result and gets no gradient. A shape is captured when it comes for the second time; the
first batch of each is decoded step by step. Buffers are bounded: shapes that were not used for longest are forgotten, and a batch
that would need more than all of the room is decoded step by step.

Shape letters as in attention_loop.py.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tts.model.attention.mechanism import Attention
from tts.model.attention_loop import attention_loop
from tts.model.attention_steps import Recurrence
from tts.model.chunk import STEPS, Capture, Chunk
from tts.model.packing import Packing, dense_packing

logger = logging.getLogger(__name__)

UTTERANCES, SYMBOLS = 8, 32
"""What B and N are rounded up to multiples of."""

ROOM = 2**30
"""Bytes of buffers that a decoder's graphs may hold; what is computed inside the graphs comes on top and is less."""


class Shape(NamedTuple):
    """What a graph is captured for."""

    batch: int
    symbols: int
    dtype: torch.dtype
    device: torch.device
    masked: bool
    keep_scale: float


class GraphCapture:
    """Makes CUDA graphs, on the current device; those of one capture share a memory pool."""

    def __init__(self) -> None:
        self._first: torch.cuda.CUDAGraph | None = None

    def __call__(self, steps: Callable[[], None]) -> Callable[[], None]:
        """Makes the steps once, which loads kernels and lets cuBLAS have its workspace, then captures them. Returns what replays them."""
        stream = _capture_stream(torch.cuda.current_device())
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            steps()
        graph = torch.cuda.CUDAGraph()
        pool = self._first.pool() if self._first else None
        # Other threads (NCCL's watchdog, pinned memory) go on talking to the device meanwhile.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            steps()
        self._first = self._first or graph
        return graph.replay


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """One for all, as cuBLAS keeps a workspace for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class LoopGraphs:
    """The graphs of one decoder."""

    def __init__(self, new_capture: Callable[[], Capture] = GraphCapture, room: int = ROOM) -> None:
        """`new_capture` makes one for each shape."""
        self._new_capture, self._room = new_capture, room
        # The one used last is last; None for a shape that came once.
        self._chunks: OrderedDict[Shape, Chunk | None] = OrderedDict()
        self._said: set[str] = set()

    def __deepcopy__(self, memo: dict[int, object]) -> "LoopGraphs":
        """Another decoder's: graphs cannot be copied, and are captured anew."""
        return LoopGraphs(self._new_capture, self._room)

    @property
    def bytes(self) -> int:
        """Memory of all buffers."""
        return sum(chunk.bytes for chunk in self._chunks.values() if chunk)

    def forget(self) -> None:
        """Gives all buffers back; shapes are captured anew when they come again."""
        self._chunks.clear()

    def attention_loop(
        self,
        attention: Attention,
        memory_BNE: Tensor,
        symbol_lengths_B: Tensor,
        packing: Packing,
        x_ZP: Tensor,
        input_GP: Tensor,
        recurrent_GF: Tensor,
        bias_G: Tensor,
        kept_ZH: Tensor | None,
        keep_scale: float,
    ) -> tuple[Tensor, Tensor]:
        """As attention_loop.attention_loop, of the memory and its lengths in the packing's order."""
        symbols, device, batch = memory_BNE.shape[1], x_ZP.device, rounded(len(memory_BNE), UTTERANCES)
        shape = Shape(batch, rounded(symbols, SYMBOLS), x_ZP.dtype, device, kept_ZH is not None, keep_scale)
        chunk = None
        if self._came_before(shape):
            padded = attention.operands(*_padded(memory_BNE, symbol_lengths_B, shape))
            chunk = self._chunk(shape, Recurrence(attention, padded, recurrent_GF, keep_scale))
        if chunk is None:
            at = attention.operands(memory_BNE, symbol_lengths_B)
            return attention_loop(attention, at, packing, x_ZP, input_GP, recurrent_GF, bias_G, kept_ZH, keep_scale)
        dense, rows_Z = dense_packing(batch, rounded(len(packing.sizes), STEPS), device), packing.rows_among(batch)
        x_ZP, kept_ZH = dense.spread(x_ZP, rows_Z), None if kept_ZH is None else dense.spread(kept_ZH, rows_Z)
        states_ZF, weights_ZN = attention_loop(attention, padded, dense, x_ZP, input_GP, recurrent_GF, bias_G, kept_ZH, keep_scale, chunk)
        return states_ZF.index_select(0, rows_Z), weights_ZN.index_select(0, rows_Z)[:, :symbols]

    def _came_before(self, shape: Shape) -> bool:
        if shape not in self._chunks:
            self._say(
                "first", logging.INFO, "the first batch of each shape is decoded step by step; the attention loop is captured with the second one"
            )
            self._chunks[shape] = None
            return False
        self._chunks.move_to_end(shape)
        return True

    def _chunk(self, shape: Shape, recurrence: Recurrence) -> Chunk | None:
        """Captured for this shape; None, said once, where it cannot be."""
        if shape.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            self._say("inside", logging.WARNING, "the attention loop is not captured inside another CUDA graph; decoding step by step")
            return None
        chunk = self._chunks[shape]
        if chunk is None:
            needed = _bytes(recurrence, masked=shape.masked)
            if needed > self._room:
                self._say(
                    "room",
                    logging.WARNING,
                    f"the attention loop is not captured for {shape.batch} utterances of {shape.symbols} symbols, whose buffers of {needed} bytes "
                    f"are over the limit of {self._room}; decoding step by step (a smaller data.frame_budget or data.max_batch_size would help)",
                )
                return None
            self._make_room(needed)
            chunk = self._chunks[shape] = Chunk(recurrence, masked=shape.masked, capture=self._new_capture())
        with torch.autocast(shape.device.type, enabled=False):
            chunk.prepare(back=torch.is_grad_enabled())
        return chunk

    def _make_room(self, needed: int) -> None:
        """Forgets shapes, those not used for longest first."""
        for shape, chunk in list(self._chunks.items()):
            if chunk is not None and self.bytes + needed > self._room:
                del self._chunks[shape]

    def _say(self, kind: str, level: int, text: str) -> None:
        """Once of each kind."""
        if kind not in self._said:
            self._said.add(kind)
            logger.log(level, "%s", text)


def rounded(number: int, multiple: int) -> int:
    """Up, to a multiple."""
    return -(-number // multiple) * multiple


def _padded(memory_BNE: Tensor, symbol_lengths_B: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    """Utterances without symbols, and symbols past the end."""
    batch, symbols, _ = memory_BNE.shape
    more = shape.batch - batch
    return functional.pad(memory_BNE, (0, 0, 0, shape.symbols - symbols, 0, more)), functional.pad(symbol_lengths_B, (0, more))


def _bytes(recurrence: Recurrence, *, masked: bool) -> int:
    """What a chunk's buffers would take."""

    def shape_of(tensor: Tensor) -> Tensor:
        return tensor.detach().to("meta")

    like = recurrence._replace(at=recurrence.at.map(shape_of), recurrent_GF=shape_of(recurrence.recurrent_GF))
    return Chunk(like, masked=masked, capture=lambda steps: steps).bytes
