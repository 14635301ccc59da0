"""`python -m pipelines upload|submit`: what a checkout that is set up also offers as `tts pipeline`."""

import sys

from pipelines.commands import pipeline
from pipelines.program import run

if __name__ == "__main__":
    sys.exit(run(pipeline, "pipeline"))
