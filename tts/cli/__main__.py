"""`python -m tts.cli`: the program `tts`."""

import sys

from tts.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
