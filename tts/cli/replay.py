"""The command that makes a skipped update again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from tts.errors import DataError, UsageError
from tts.storage import cached_file, default_cache, is_remote, local

if TYPE_CHECKING:
    from tts.training.evidence import Evidence
    from tts.training.measured_modules import Measured
    from tts.training.replay import Replayed

LISTED = 6
"""Modules that are not finite, and as many of the largest before them."""


def replay(
    anomaly: Annotated[
        str,
        tyro.conf.arg(metavar="ANOMALY", help="A run's anomalies/step-XXXXXXXX.json or .pt, or its folder: the newest. Here or in an object store."),
    ],
    *,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        tyro.conf.arg(help="Where to compute; auto: on what it was made on, if this machine has it.", help_behavior_hint="(default auto)"),
    ] = "auto",
) -> None:
    """Make an update that was skipped again, and show where its numbers stopped being finite.

    A training keeps what that takes for its first skipped updates (recovery.evidence_files): weights, batch, seeds, configuration.
    Features and the training's machine are not needed. Shown are what was found then and now, the loss terms, which modules
    returned the largest numbers and which were the first to return NaN or infinity, and the utterances that are at fault.

    Ends with 0 when the same tensor is not finite in the same way; with 1 when it is another or none, as may be on another kind
    of device, in another number format or with another torch; with 64 for a wrong argument; with 65 for a file that is cut or
    of another version, or where nothing was kept.
    """
    path = _evidence_file(anomaly)
    from tts.training.evidence import read_evidence
    from tts.training.replay import NotReproducedError
    from tts.training.replay import replay as make_again

    evidence = read_evidence(path)
    made = make_again(path, evidence, device)
    _show(anomaly, evidence, made)
    if not made.reproduces(evidence):
        raise NotReproducedError(f"not reproduced: {_difference(evidence, made)}")
    print("reproduced")


def _evidence_file(place: str) -> Path:
    """The .pt that a place means. Raises UsageError, DataError, and what fetching raises."""
    if place.endswith((".pt", ".json")) and is_remote(place):
        return cached_file(f"{place.removesuffix('.json').removesuffix('.pt')}.pt", default_cache())
    path = local(place)
    if path.is_dir():
        return _newest(path)
    if not path.exists():
        raise DataError(f"{place} does not exist; expected anomalies/step-XXXXXXXX.json of a run, or its folder")
    if path.suffix not in (".json", ".pt"):
        raise UsageError(f"{place} is no skipped update; expected anomalies/step-XXXXXXXX.json or .pt of a run, or its folder")
    return path if path.suffix == ".pt" else _beside(path)


def _newest(run: Path) -> Path:
    """The evidence of the newest skipped update that has one: of the run as it is, else of what its last restart put aside."""
    folders = [run / "anomalies", *sorted(run.glob("restarts/*/anomalies"), reverse=True)]
    kept = [path for folder in folders for path in sorted(folder.glob("step-*.pt"), reverse=True)]
    if kept:
        return kept[0]
    skipped = [path for folder in folders for path in folder.glob("step-*.json")]
    if skipped:
        raise DataError(f"{run} has {len(skipped)} skipped updates but no evidence of them: train with recovery.evidence_files above 0 to keep it")
    raise DataError(f"{run} has no skipped update in anomalies/; expected the folder of a run that had one")


def _beside(record: Path) -> Path:
    try:
        name = dict(json.loads(record.read_text(encoding="utf-8"))).get("evidence")
    except (ValueError, TypeError) as error:
        raise DataError(f"{record} is no record of a skipped update ({error}); expected anomalies/step-XXXXXXXX.json of a run") from None
    if not isinstance(name, str):
        raise DataError(
            f"{record} names no evidence: a run keeps that of its first skipped updates only (recovery.evidence_files); "
            f"replay an earlier one, or the run's folder"
        )
    return record.with_name(name)


def _show(place: str, evidence: "Evidence", made: "Replayed") -> None:
    ranks = f" by {len(evidence.batches)} processes" if len(evidence.batches) > 1 else ""
    print(f"step {evidence.step} of {place}{ranks}")
    print(f"made on {evidence.device} in {evidence.precision} with torch {evidence.torch_version}")
    print(f"again on {made.device} in {made.precision} with torch {made.torch_version}")
    print(f"then: {evidence.anomaly}")
    print(f"now:  {made.anomaly or ('an overflow of the gradient scaler' if made.overflow else 'all is finite')}")
    print("\nloss and terms: " + ", ".join(f"{name} {value:.4g}" for name, value in made.figures.items()))
    _table("\nmodules, in the order in which they returned", made.modules)
    if evidence.anomaly.kind == "gradient":
        _table("\ngradients, in the order of the backward pass", made.gradients)
    _utterances(evidence, made)


def _table(title: str, measured: "Sequence[Measured]") -> None:
    from tts.training.measured_modules import telling

    shown = telling(measured, LISTED)
    finite = sum(one.finite for one in measured)
    largest = "the largest before the first that is not finite, and those from there on" if finite < len(measured) else "the largest"
    print(f"{title}: {finite} of {len(measured)} are finite; {largest}")
    rows: list[tuple[str, ...]] = [("name", "shape", "min", "max", "absmax", "NaN", "inf")]
    for one in shown:
        values = (f"{value:.4g}" for value in (one.minimum, one.maximum, one.largest))
        rows.append((one.name, "x".join(map(str, one.shape)), *values, str(one.nan), str(one.inf)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *figures in rows:
        print(name.ljust(widths[0]), *(figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)), sep="  ")


def _utterances(evidence: "Evidence", made: "Replayed") -> None:
    ids = evidence.batches[0].all_ids
    blamed = set((made.anomaly or evidence.anomaly).utterances)
    print(f"\nutterances: {len(ids)}, those with * are at fault")
    for identity in sorted(ids, key=lambda identity: identity not in blamed):
        print(f"{'*' if identity in blamed else ' '} {identity}  {evidence.texts.get(identity, '')}")


def _difference(evidence: "Evidence", made: "Replayed") -> str:
    now = f"now {made.anomaly}" if made.anomaly else "now all is finite"
    what = [
        f"{name} {before} then, {after} now"
        for name, before, after in (
            ("device", evidence.device, made.device),
            ("precision", evidence.precision, made.precision),
            ("torch", evidence.torch_version, made.torch_version),
        )
        if before != after
    ]
    return f"then {evidence.anomaly}, {now}" + (f" ({'; '.join(what)})" if what else "")
