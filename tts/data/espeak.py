"""espeak-ng by ctypes, as a program of its own: a request as JSON on standard input, speech on standard output.

The library keeps the state of its wave generator for the life of the process and changes the locale. In a process of its own
the same request always gives the same bytes, and the caller stays as it was. Run by `tts.data.demo_corpus`; it imports nothing of ours.

Request: {"voice": "en-us", "rate": 160, "texts": [...]}. Answer: the sample rate, then for each text the number of bytes and
that many bytes of 16-bit mono samples; numbers are 4 bytes, little endian.
"""

import ctypes
import json
import sys
from collections.abc import Iterator

import espeakng_loader

# From espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_DO_NOT_EXIT = 0x8000
_RATE = 1
_UTF8 = 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


class EspeakError(RuntimeError):
    """espeak-ng refused."""


def speak(texts: list[str], voice: str, rate: int) -> Iterator[bytes]:
    """First the sample rate, then each text's samples."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    pieces: list[bytes] = []

    def collect(samples: int | None, count: int, _events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0

    callback = _Callback(collect)
    sample_rate = library.espeak_Initialize(_SYNCHRONOUS, 0, espeakng_loader.get_data_path().encode(), _DO_NOT_EXIT)
    if sample_rate <= 0:
        raise EspeakError(f"no voice data in {espeakng_loader.get_data_path()}")
    library.espeak_SetSynthCallback(callback)
    if library.espeak_SetVoiceByName(voice.encode()) or library.espeak_SetParameter(_RATE, rate, 0):
        raise EspeakError(f"voice {voice!r} at {rate} words a minute is not available")
    yield int(sample_rate).to_bytes(4, "little")
    for text in texts:
        pieces.clear()
        encoded = text.encode()
        if library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None):
            raise EspeakError(f"cannot speak {text!r}")
        yield b"".join(pieces)


def main() -> None:
    """Answers one request."""
    request = json.load(sys.stdin.buffer)
    answer = speak(request["texts"], request["voice"], request["rate"])
    sys.stdout.buffer.write(next(answer))
    for samples in answer:
        sys.stdout.buffer.write(len(samples).to_bytes(4, "little") + samples)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
