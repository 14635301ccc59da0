"""Why a step failed, left where it can be found: the backend loses exit codes, and uploads nothing of a step that failed."""

import html
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from tts.errors import TtsError
from tts.step.artefact import Artefact, uploaded
from tts.storage import exists, is_remote, join, remove, write_bytes, write_text

logger = logging.getLogger(__name__)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{step} failed</title></head>
<body style="font: 16px/1.5 sans-serif; max-width: 50em; margin: 3em auto; padding: 0 1em">
<h1>The step {step} failed</h1>
<p>{message}</p>
<p>Exit code {exit_code}: {meaning}. The step's log says more.</p>
</body></html>
"""
MEANINGS = {
    64: "an option, the configuration or a combination of inputs is wrong",
    65: "data cannot be used as it is",
    69: "a service stayed out of reach",
    70: "training diverged",
    73: "an output cannot be written",
    75: "stopped before its end; started again it goes on from there",
    130: "interrupted",
}


def record(error: BaseException, code: int, *, stage: str, output: Artefact, page: Artefact | None, work: str) -> None:
    """Leaves failure.json, and in place of the step's page one that says why. Failing to do so is logged: the first error matters more."""
    facts: dict[str, str | int] = {
        "step": stage, "exit_code": code, "error": type(error).__name__, "message": str(error), "pod": os.environ.get("KFP_POD_NAME", ""),
    }  # fmt: skip
    try:
        _write(_place(stage, output, work), json.dumps(facts, indent=1) + "\n")
        if page is not None:
            _write_page(page, facts)
    except (TtsError, OSError) as problem:
        logger.warning("why the step failed could not be written beside its results: %s", problem)


def clear(*, stage: str, output: Artefact, work: str) -> None:
    """Removes what an earlier attempt left: this one ended well. Failing to do so is logged: the work itself is done."""
    try:
        _remove(_place(stage, output, work))
    except (TtsError, OSError) as problem:
        logger.warning("whether an earlier attempt left a failure cannot be seen, and if it did, that stays: %s", problem)


def _place(stage: str, output: Artefact, work: str) -> str:
    """In the work folder; without one beside the step's output, in an object store as on this machine."""
    if work:
        return join(work, "failures", f"{stage}.json")
    return f"{output.uri.rstrip('/').rsplit('/', 1)[0]}/{stage}-failure.json"


def _write(place: str, text: str) -> None:
    if is_remote(place):
        write_bytes(place, text.encode())
    else:
        write_text(Path(place), text)


def _remove(place: str) -> None:
    if not is_remote(place):
        Path(place).unlink(missing_ok=True)
    elif exists(place):
        remove(place)


def _write_page(page: Artefact, facts: Mapping[str, str | int]) -> None:
    meaning = MEANINGS.get(int(facts["exit_code"]), "a defect of the program")
    text = PAGE.format(meaning=meaning, **{name: html.escape(str(value)) for name, value in facts.items()})
    write_text(Path(page.path), text)
    if uploaded(page):
        write_bytes(page.uri, text.encode())
