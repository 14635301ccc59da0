"""The image that every step runs in: Python, torch and `tts`, no pip at run time."""

from tts import __version__

IMAGE = f"smart-tuner-tts:{__version__}"
