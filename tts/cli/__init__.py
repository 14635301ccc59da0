"""The command line."""

from tts.cli.main import main

__all__ = ["main"]
