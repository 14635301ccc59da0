"""`python -m tts.tuning`: a worker of the local launcher.

The module imports nothing by itself: the processes that trials run in load their parent's main module anew.
"""

import sys

if __name__ == "__main__":
    from tts.tuning.work.worker import main

    sys.exit(main())
