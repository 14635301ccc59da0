"""The command `pipeline` of the program `tts`.

The product knows nothing of Kubeflow Pipelines, so this package offers the command to it: `tts` runs what the entry-point group tts.commands names.
"""

from collections.abc import Callable, Sequence

import tyro

from pipelines.program import parsing


def pipeline(arguments: Sequence[str] | None = None) -> None:
    """Upload the compiled pipeline to a Kubeflow Pipelines server, or start a run of it.

    Raises TtsError, and SystemExit after --help or for arguments that do not parse.
    """
    from pipelines.submit import submit
    from pipelines.upload import upload

    commands: dict[str, Callable[..., None]] = {"upload": upload, "submit": submit}
    description = "Upload the compiled pipeline to a Kubeflow Pipelines server, or start a run of it."
    with parsing():
        tyro.extras.subcommand_cli_from_dict(commands, prog="tts pipeline", description=description, args=arguments, use_underscores=True)
