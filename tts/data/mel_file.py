"""`mels.npy`, written block by block: the corpus never has to fit into memory."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray


class MelFile:
    """An .npy file of float32 rows (frames, M) that grows at its end. Use as a context manager."""

    def __init__(self, path: Path, mels: int) -> None:
        self._file = path.open("w+b")
        self._mels = mels
        self.lengths: list[int] = []
        """Frames of each block."""
        self._write_header()
        self._start = self._file.tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._file.close()

    def append(self, mel_TM: NDArray[np.float32]) -> None:
        """Adds a block."""
        self._file.write(np.ascontiguousarray(mel_TM, dtype="<f4").data)
        self.lengths.append(len(mel_TM))

    def keep(self, wanted: Sequence[bool]) -> None:
        """Drops the blocks that are not wanted; the others move together, in their order."""
        source = target = self._start
        for length, kept in zip(self.lengths, wanted, strict=True):
            size = length * self._mels * 4
            if kept and source != target:
                self._file.seek(source)
                block = self._file.read(size)
                self._file.seek(target)
                self._file.write(block)
            source += size
            target += size if kept else 0
        self._file.seek(target)
        self._file.truncate()
        self.lengths = [length for length, kept in zip(self.lengths, wanted, strict=True) if kept]

    def _finish(self) -> None:
        end = self._file.tell()
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._start:
            raise RuntimeError("the .npy header grew into the data: numpy no longer leaves room for the first dimension")
        self._file.seek(end)

    def _write_header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (sum(self.lengths), self._mels)}
        np.lib.format.write_array_header_1_0(self._file, header)
