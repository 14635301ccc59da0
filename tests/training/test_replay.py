"""`tts replay`: updates skipped for real causes, made again from what the run kept."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import torch

from tests.training import rank_processes as processes
from tts.config.load import override
from tts.data.store import FeatureStore
from tts.errors import TrainingDivergedError
from tts.progress import Silent
from tts.storage import publish
from tts.training.evidence import read_evidence, write_evidence
from tts.training.loop import train
from tts.training.measured_modules import Measured, measure, telling, together
from tts.training.preemption import StopFlag
from tts.training.step import train_step


@pytest.fixture(scope="module")
def config(tiny):
    """Ends at the first skipped update."""
    return override(tiny, {"training.steps": 60, "training.validation_interval": 60, "recovery.max_skipped_updates": 1, "recovery.remedies": ()})


def _until_skipped(store, config, run):
    with pytest.raises(TrainingDivergedError):
        list(train(store, config, run, progress=Silent(), stop=StopFlag()))
    (record,) = (run / "anomalies").glob("*.json")
    return record, json.loads(record.read_text())


def _poisoned(store, folder, value):
    """A copy of the store in which one frame of one clip to train on has that value in a band."""
    shutil.copytree(store.folder, folder)
    mels = np.load(folder / "mels.npy", mmap_mode="r+")
    mels[store._offsets[store.train[1]] + 3, 5] = value
    mels.flush()
    return FeatureStore.open(folder), store.ids[store.train[1]]


@pytest.mark.parametrize(("value", "found"), [(np.nan, ("input", "mel", "nan")), (1e25, ("loss", "mel_before", "inf"))])
def test_a_poisoned_recording(tts, store, config, tmp_path, value, found):
    poisoned, clip = _poisoned(store, tmp_path / "features", value)
    record, anomaly = _until_skipped(poisoned, config, tmp_path / "run")
    assert (anomaly["kind"], anomaly["name"], anomaly["value"], anomaly["utterances"]) == (*found, [clip])
    assert anomaly["evidence"] == record.with_suffix(".pt").name
    shutil.rmtree(poisoned.folder)

    code, out, said = tts("replay", record)
    assert code == 0, said
    assert re.findall(r"^(?:then|now): +(.*)", out, re.MULTILINE) == [f"{found[0]} mel{'_before' * (found[0] == 'loss')} is {found[2]} ({clip})"] * 2
    assert f"* {clip}  {store.texts[store.train[1]]}\n" in out
    assert out.count("\n* ") == 1
    assert [identity for identity in anomaly["batch"] if f" {identity}  " in out] == anomaly["batch"]
    assert out.endswith("reproduced\n")
    assert "mel_before nan" in out if found[2] == "nan" else "mel_before inf" in out
    assert tts("replay", tmp_path / "run", "--device", "cpu")[1].splitlines()[1:] == out.splitlines()[1:]


def test_weights_that_a_learning_rate_blew_up(tts, new_run, tiny, tmp_path):
    """One update of Adam at a rate that no configuration takes; the step after it is skipped."""
    learner, batch = new_run(tiny)
    train_step(learner, batch, tiny, 1)
    learner.optimiser.param_groups[0]["lr"] = 1e30
    learner.optimiser.step()
    evidence = train_step(learner, batch, tiny, 2, keep_evidence=True).evidence
    assert evidence.anomaly.kind == "module"
    code, out, said = tts("replay", write_evidence(tmp_path, evidence, {}))
    assert code == 0, said
    before, first = (f"{out}\n".split(f"\n{evidence.anomaly.name} ")[place] for place in (0, 1))
    assert sum(map(int, first.splitlines()[0].split()[-2:])) > 0, "of the module that is named NaN or infinities are counted"
    rows_before = [row.split()[-2:] for row in before.split("absmax")[1].splitlines()[1:]]
    assert rows_before == [["0", "0"]] * len(rows_before) != [], "what returned before it is finite"


def test_a_gradient_is_shown_with_its_neighbours(tts, new_run, tiny, tmp_path):
    learner, batch = new_run(tiny)
    learner.model.mel_deviation_M.fill_(1e9)
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[2, 1, 3] = 1e19
    result = train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 5, keep_evidence=True)
    path = write_evidence(tmp_path, result.evidence, {})
    code, out, said = tts("replay", path)
    assert code == 0, said
    assert f"now:  gradient norm over all parameters is inf ({batch.ids[2]})\n" in out
    assert "\ngradients, in the order of the backward pass" in out


def test_two_processes_are_two_again(tts, damaged_store, config, tmp_path):
    """Each draws its own dropout, and batch statistics are those of both: one process would make another step."""
    knobs = override(config, {"data.frame_budget": 100_000})
    leader, _ = processes.run(2, processes.whole_run, damaged_store.folder, knobs.model_dump(mode="json"), tmp_path / "run")
    assert leader[0] == "TrainingDivergedError"
    evidence = read_evidence(tmp_path / "run" / "anomalies" / "step-00000001.pt")
    assert len(evidence.batches) == 2
    code, out, said = tts("replay", tmp_path / "run")
    assert code == 0, said
    assert "step 1 of" in out
    assert "by 2 processes" in out
    figures = json.loads((tmp_path / "run" / "anomalies" / "step-00000001.json").read_text())["figures"]
    assert f"gate {figures['gate']:.4g}" in out or figures["gate"] == "nan"
    assert f"guided_attention {float(figures['guided_attention']):.4g}" in out


def test_another_result_is_said_to_be_another(tts, damaged_store, config, tmp_path):
    record, anomaly = _until_skipped(damaged_store, config, tmp_path / "run")
    evidence = read_evidence(record.with_suffix(".pt"))
    other = dataclasses.replace(evidence, anomaly=dataclasses.replace(evidence.anomaly, value="inf"), torch_version="1.0", device="cuda")
    write_evidence(record.parent, other, {})
    code, out, said = tts("replay", record)
    assert code == 1
    assert "reproduced" not in out
    clip = anomaly["utterances"][0]
    assert said.startswith(
        f"tts: error: not reproduced: then input mel is inf ({clip}), now input mel is nan ({clip}) (device cuda then, cpu now; torch"
    )

    healed = [dataclasses.replace(batch, mel_BTM=batch.mel_BTM.nan_to_num(0)) for batch in evidence.batches]
    write_evidence(record.parent, dataclasses.replace(evidence, batches=tuple(healed)), {})
    code, out, said = tts("replay", record)
    assert (code, said) == (1, f"tts: error: not reproduced: then {evidence.anomaly}, now all is finite")


def test_only_the_first_are_kept(tts, damaged_store, config, tmp_path):
    knobs = override(config, {"recovery.max_skipped_updates": 3, "data.frame_budget": 100_000})
    with pytest.raises(TrainingDivergedError):
        list(train(damaged_store, knobs, tmp_path / "run", progress=Silent(), stop=StopFlag()))
    names = sorted(path.name for path in (tmp_path / "run" / "anomalies").iterdir())
    assert names == ["step-00000001.json", "step-00000001.pt", "step-00000002.json", "step-00000002.pt", "step-00000003.json"]
    code, _, said = tts("replay", tmp_path / "run" / "anomalies" / "step-00000003.json")
    assert code == 65
    assert "names no evidence: a run keeps that of its first skipped updates only (recovery.evidence_files)" in said
    assert "step 2 of" in tts("replay", tmp_path / "run")[1]

    none = override(knobs, {"recovery.evidence_files": 0})
    with pytest.raises(TrainingDivergedError):
        list(train(damaged_store, none, tmp_path / "other", progress=Silent(), stop=StopFlag()))
    code, _, said = tts("replay", tmp_path / "other")
    assert code == 65
    assert "has 3 skipped updates but no evidence of them: train with recovery.evidence_files above 0" in said


def test_what_a_restart_put_aside_is_found(tts, damaged_store, config, tmp_path):
    record, _ = _until_skipped(damaged_store, config, tmp_path / "run")
    aside = tmp_path / "run" / "restarts" / "01"
    aside.mkdir(parents=True)
    record.parent.rename(aside / "anomalies")
    assert tts("replay", tmp_path / "run")[0] == 0
    assert tts("replay", aside)[0] == 0


@pytest.mark.parametrize(
    ("place", "code", "message"),
    [
        ("missing", 65, "missing does not exist; expected anomalies/step-XXXXXXXX.json of a run, or its folder"),
        ("missing.pt", 65, "missing.pt does not exist"),
        ("notes.txt", 64, "notes.txt is no skipped update; expected anomalies"),
        ("empty", 65, "empty has no skipped update in anomalies/"),
        ("broken.json", 65, "broken.json is no record of a skipped update"),
        ("list.json", 65, "list.json is no record of a skipped update"),
        ("alone.json", 65, "evidence step-00000001.pt does not exist"),
        ("cut.pt", 65, "evidence cut.pt cannot be read"),
    ],
)
def test_what_cannot_be_replayed(tts, tmp_path, monkeypatch, place, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for name, text in (
        ("notes.txt", ""),
        ("broken.json", "{"),
        ("list.json", "[1]"),
        ("alone.json", '{"evidence": "step-00000001.pt"}'),
        ("cut.pt", "PK"),
    ):
        (tmp_path / name).write_text(text)
    result, out, said = tts("replay", place)
    assert (result, out) == (code, "")
    assert message in said


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(tts, damaged_store, config, tmp_path):
    record, _ = _until_skipped(damaged_store, config, tmp_path / "run")
    code, _, said = tts("replay", record, "--device", "cuda")
    assert (code, said) == (64, "tts: error: --device is cuda but torch finds no CUDA device here; set --device cpu")


def test_from_an_object_store(tts, damaged_store, config, tmp_path, bucket):
    record, _ = _until_skipped(damaged_store, config, tmp_path / "run")
    publish(tmp_path / "run", f"{bucket.uri}/run", Silent())
    for place in ("run", f"run/anomalies/{record.name}", f"run/anomalies/{record.stem}.pt"):
        code, out, said = tts("replay", f"{bucket.uri}/{place}")
        assert code == 0, said
        assert out.startswith(f"step {int(record.stem[-8:])} of {bucket.uri}/{place}\n")


def test_figures_of_a_tensor():
    measured = measure("x", torch.tensor([[1.0, -3.0], [torch.nan, torch.inf]]))
    assert measured == Measured("x", (2, 2), -3.0, 1.0, nan=1, inf=1)
    assert (measured.largest, measured.finite) == (3.0, False)
    lost = measure("y", torch.full((2,), torch.nan))
    assert np.isnan(lost.minimum)
    assert (lost.nan, lost.inf) == (2, 0)
    joined = together([[measured], [measure("x", torch.tensor([5.0]))], [measure("x", torch.tensor([torch.nan]))]])
    assert joined == [Measured("x", (2, 2), -3.0, 5.0, nan=2, inf=1)]


def test_what_is_told_of_many_tensors():
    fine = [Measured(f"fine {number}", (1,), -float(number), 0.0, 0, 0) for number in (3, 9, 1, 7)]
    bad = [Measured(f"bad {number}", (1,), 0.0, 1e30, 1, 0) for number in range(3)]
    assert [one.name for one in telling([*fine, bad[0], fine[1], *bad[1:]], 2)] == ["fine 9", "fine 7", "bad 0", "bad 1"]
    assert [one.name for one in telling(fine, 2)] == ["fine 9", "fine 7"]
    assert telling([], 2) == []
