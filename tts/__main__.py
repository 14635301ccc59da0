"""`python -m tts`, and what torchrun starts: the program `tts`."""

import sys

from tts.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
