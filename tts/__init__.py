"""Smart Tuner TTS: trains a Tacotron 2 voice and finds its hyperparameters by itself."""

__version__ = "0.1.0"
