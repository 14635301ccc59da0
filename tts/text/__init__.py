"""Transcripts into symbols."""

from tts.text.pipeline import Encoded, text_to_symbols

__all__ = ["Encoded", "text_to_symbols"]
