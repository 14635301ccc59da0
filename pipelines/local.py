"""`python -m pipelines.local CORPUS OUT`: the pipeline on this machine, each step a process of its own, no cluster and no server.

What was done stays in OUT: started again, the pipeline goes on from there.
"""

import contextlib
import fcntl
import io
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, TextIO

import tyro

from pipelines.program import run
from tts import chain, step
from tts.config import Config
from tts.config.resolve import overrides_from_json, resolve
from tts.errors import TtsError, UsageError
from tts.progress import for_terminal
from tts.storage import prepare_folder

SENTENCES = {
    "en": "This voice was tuned and trained on your own machine.",
    "ru": "Этот голос настроен и обучен на вашем компьютере.",
}
"""Spoken at the end of the demo."""


def local(
    corpus: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    preset: str = "tacotron2",
    language: str = "",
    trials: int = 0,
    training_steps: int = 0,
    overrides: str = "",
    tracking_uri: str = "",
    demo: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Run the pipeline on this machine.

    Args:
        corpus: Folder with the recordings: metadata.csv and wavs/, or manifest.jsonl.
        out: Folder of the results.
        preset: Sizes and settings to start from: tacotron2, full, small or demo.
        language: Language of the transcripts; empty: the preset's.
        trials: Trials of the study; 0: the preset's.
        training_steps: Updates of the final training; 0: the preset's.
        overrides: Any other knobs as JSON, by their full names.
        tracking_uri: MLflow server; empty: a file in OUT.
        demo: Take the preset demo, make the corpus where there is none, and let the voice speak at the end.
    """
    begun = time.monotonic()
    preset = "demo" if demo else preset
    named = {"text.language": language, "tuning.trials": trials, "training.steps": training_steps, "tracking.uri": tracking_uri}
    given = {name: value for name, value in named.items() if value not in ("", 0)}
    config = resolve(name=preset, overrides={**given, **overrides_from_json(overrides)})
    if demo:
        _demo_corpus(corpus, config)
    with _alone(prepare_folder(out)):
        if chain.finished(corpus, out, config):
            print(f"every stage of {out} was done before; remove the folder to begin anew")
        else:
            _run_pipeline(out, corpus=str(corpus.absolute()), preset=preset, language=language, trials=trials, training_steps=training_steps,
                          overrides=overrides, tracking_uri=tracking_uri, work=str(out.absolute()))  # fmt: skip
            chain.mark_finished(corpus, out, config)
        _show(out, config, begun, speak=demo)


def main() -> int:
    """The program: exit codes are those of `tts`; 1 when a step failed, whose own message is above."""
    return run(lambda: tyro.cli(local, prog="python -m pipelines.local", use_underscores=True), "pipeline")


def _demo_corpus(corpus: Path, config: Config) -> None:
    from tts.data.corpus import is_corpus

    if not is_corpus(corpus):
        from tts.data.demo_corpus import write_demo_corpus

        write_demo_corpus(corpus, language=config.text.language, utterances=300, seed=0, progress=for_terminal())


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Holds the folder for this process. Steps watch the lock, and end when its holder is gone."""
    with (out / step.PIPELINE_LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is at work in {out}; wait for it or stop it, or choose another folder") from None
        yield


def _run_pipeline(out: Path, **arguments: str | int) -> None:
    from kfp import local as runner

    from pipelines.training import training

    # Names for the interface and the cache mean nothing on one machine, and our image is this very environment.
    warnings.filterwarnings("ignore", message="Task .* have no effect in the current local runner", category=UserWarning)
    warnings.filterwarnings("ignore", message="You may be attemping to run a task", category=RuntimeWarning)
    runner.init(runner.SubprocessRunner(use_venv=False), pipeline_root=str(out.absolute() / "steps"))
    try:
        with contextlib.redirect_stdout(_Readable(sys.stdout)):
            training(None)(**arguments)
    except RuntimeError as error:
        raise TtsError(f"{' '.join(str(error).split())}; the reason is above, and the same command goes on from there") from None


class _Readable(io.TextIOBase):
    """Passes a step's output on without the JSON of its inputs and outputs, which fills a screen for each step."""

    def __init__(self, target: TextIO) -> None:
        self._target, self._line, self._skipping = target, "", False

    def write(self, text: str) -> int:
        """Whole lines are passed on as they come."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            starts, ends = "Got executor_input:" in line, line == "    }"
            if not (self._skipping or starts):
                self._target.write(re.sub(r"^    \[KFP Executor \S+ ([\d:]+),\d+ \w+\]: ", r"\1 ", line) + "\n")
            self._skipping = starts or (self._skipping and not ends)
        self._target.flush()
        return len(text)


def _show(out: Path, config: Config, begun: float, *, speak: bool) -> None:
    done = chain.Chain(out)
    speech = out / "speech.wav"
    if speak and not speech.exists():
        from tts.evaluation.speak import synthesise_text

        synthesise_text(done.run, SENTENCES[config.text.language], speech, config)
    print(f"report: {done.report}")
    print(f"model:  {done.run}")
    if speech.exists():
        print(f"speech: {speech}")
    print(f"time:   {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
