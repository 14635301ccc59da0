"""What was recorded and not delivered."""

from pathlib import Path
from typing import Annotated

import tyro

from tts.cli.places import Folder
from tts.config import Config
from tts.progress import for_terminal

Results = Annotated[Path, Folder("continued"), tyro.conf.arg(metavar="FOLDER", help="A study, a training run, or what `tts run` made.")]


def flush(folder: Results, *, config: Config) -> None:
    """Deliver to MLflow what was recorded while it was away.

    Each run goes to the server that it was recorded for, or to --tracking.uri. Workers may go on meanwhile; a second time delivers nothing twice.
    """
    from tts.errors import DataError

    if not folder.is_dir():
        raise DataError(f"folder {folder} does not exist")
    from tts.tracking import prepare_environment

    prepare_environment()
    from tts.tracking.flush import flush as deliver

    made = deliver(folder, config.tracking, progress=for_terminal())
    print(f"delivered: {made.records} records of {made.runs} runs; left: {made.left}")
    if made.reason:
        raise made.reason
