"""What is kept of a skipped update: whole, safe to load, and no more of it than was asked for."""

import dataclasses
import hashlib
import io
import pathlib
import tempfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.amp.grad_scaler import GradScaler

from tts.config.load import override
from tts.data.batch import Batch, Whole
from tts.errors import CannotWriteError, DataError
from tts.training.anomaly import Anomaly
from tts.training.evidence import Evidence, read_evidence, write_evidence
from tts.training.step import train_step

IDS = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True).map(tuple)
FLOATS = st.floats(width=32)


@st.composite
def batches(draw):
    ids, frames, mels = draw(IDS), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size = frames * mels
    values = [draw(st.lists(FLOATS, min_size=size, max_size=size)) for _ in ids]
    lengths_B = torch.full((len(ids),), frames, dtype=torch.int64)
    parts = draw(st.sampled_from([None, Whole(ids, lengths_B)]))
    speakers_B = draw(st.sampled_from([None, torch.zeros(len(ids), dtype=torch.int64)]))
    mel_BTM = torch.tensor(values, dtype=torch.float32).reshape(len(ids), frames, mels)
    return Batch(ids, lengths_B[:, None].clone(), lengths_B.clamp(max=1), mel_BTM, lengths_B, parts, speakers_B)


@st.composite
def evidences(draw, config):
    parts = tuple(draw(st.lists(batches(), min_size=1, max_size=2)))
    kind, value = draw(st.sampled_from(["input", "module", "loss", "gradient", "statistics"])), draw(st.sampled_from(["nan", "inf"]))
    return Evidence(
        step=draw(st.integers(1, 10**8 - 1)),
        anomaly=Anomaly(kind, draw(st.text(max_size=20)), value, draw(IDS)),
        config=override(config, {"training.seed": draw(st.integers(0, 2**31))}),
        batches=parts,
        model={"weight": torch.tensor(draw(st.lists(FLOATS, max_size=5)))},
        scaler=draw(st.sampled_from([{}, GradScaler("cpu", init_scale=2.0**7).state_dict()])),
        symbols=draw(st.integers(1, 100)),
        speakers=draw(st.integers(1, 10)),
        device=draw(st.sampled_from(["cpu", "cuda"])),
        precision=draw(st.sampled_from(["fp32", "bf16", "fp16"])),
    )


def _same(ours, theirs):
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours.nan_to_num(7), theirs.nan_to_num(7)) and torch.equal(ours.isnan(), theirs.isnan())
    if dataclasses.is_dataclass(ours):
        return type(ours) is type(theirs) and all(_same(getattr(ours, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(ours))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(_same(ours[name], theirs[name]) for name in ours)
    if isinstance(ours, tuple):
        return isinstance(theirs, tuple) and len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return ours == theirs


@settings(max_examples=50)
@given(data=st.data())
def test_what_was_written_is_read(tiny, data):
    evidence = data.draw(evidences(tiny))
    texts = {identity: f"text of {identity}" for identity in evidence.batches[0].all_ids}
    with tempfile.TemporaryDirectory() as name:
        path = write_evidence(pathlib.Path(name), evidence, texts | {"another's": "text"})
        assert path.name == f"step-{evidence.step:08d}.pt"
        assert [entry.name for entry in pathlib.Path(name).iterdir()] == [path.name]
        assert _same(read_evidence(path), dataclasses.replace(evidence, texts=texts))


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    lengths_B = torch.tensor([2])
    batch = Batch(("a",), torch.ones(1, 1, dtype=torch.int64), torch.ones(1, dtype=torch.int64), torch.randn(1, 2, 3), lengths_B)
    weights, anomaly = {"weight": torch.randn(100)}, Anomaly("loss", "gate", "nan", ("a",))
    evidence = Evidence(3, anomaly, tiny, (batch,), weights, {}, 10, 1, "cpu", "fp32", texts={"a": "Hello"})
    return evidence, write_evidence(tmp_path_factory.mktemp("evidence"), evidence, {"a": "Hello"}).read_bytes()


@settings(max_examples=150)
@given(data=st.data())
def test_a_file_that_was_cut_or_altered_is_refused_or_is_still_the_same(written, data):
    evidence, content = written
    place = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(st.sampled_from([content[:place], content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]]))
    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "step-00000003.pt"
        path.write_bytes(changed)
        try:
            found = read_evidence(path)
        except DataError as error:
            refused = str(path) in str(error)
        else:
            refused = _same(found, evidence)
        assert refused, "neither refused by name nor the same"


def test_other_files_are_told_apart(written, tmp_path):
    path = tmp_path / "step-00000001.pt"
    with pytest.raises(DataError, match=r"step-00000001\.pt does not exist; expected anomalies"):
        read_evidence(path)
    torch.save({"format": 2, "step": 1, "model": {}}, path)
    with pytest.raises(DataError, match="is no evidence of a skipped update"):
        read_evidence(path)
    path.write_bytes(written[1])
    outer = torch.load(path, weights_only=True)
    torch.save(outer | {"format": 99}, path)
    with pytest.raises(DataError, match=r"written by another version of this program \(\S+, this is \S+: its format is 99, not 1\)"):
        read_evidence(path)
    torch.save(outer | {"content": outer["content"].flip(0)}, path)
    with pytest.raises(DataError, match="is damaged"):
        read_evidence(path)


@pytest.mark.parametrize(
    ("change", "reason"), [({"config": {"unheard_of": {}}}, "unheard_of"), ({"more": 1}, "more"), ({"anomaly": {"kind": "loss"}}, "name")]
)
def test_evidence_of_another_version_is_refused(written, tmp_path, change, reason):
    path = tmp_path / "step-00000001.pt"
    path.write_bytes(written[1])
    outer = torch.load(path, weights_only=True)
    content = io.BytesIO()
    torch.save(torch.load(io.BytesIO(outer["content"].numpy().tobytes()), weights_only=True) | change, content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()
    torch.save(outer | {"content": torch.frombuffer(bytearray(content.getvalue()), dtype=torch.uint8), "sha256": digest}, path)
    with pytest.raises(DataError, match=rf"written by another version of this program \(\S+, this is \S+: .*{reason}"):
        read_evidence(path)


def test_a_full_disk_leaves_nothing_behind(written, tmp_path, file_size_limit):
    with file_size_limit(1000), pytest.raises(CannotWriteError):
        write_evidence(tmp_path, written[0], {})
    assert list(tmp_path.iterdir()) == []


def test_the_scaler_is_kept_as_it_was_before_the_step(new_run, tiny):
    learner, batch = new_run(tiny)
    learner = dataclasses.replace(learner, scaler=GradScaler("cpu", init_scale=2.0**10))
    mel_BTM = batch.mel_BTM.clone()
    mel_BTM[0, 0, 0] = torch.nan
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    result = train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 1, keep_evidence=True)
    assert learner.scaler.get_scale() == 2.0**9
    assert result.evidence is not None
    assert result.evidence.scaler["scale"] == 2.0**10
    assert _same(result.evidence.model, before)
    assert _same(result.evidence.batches, (dataclasses.replace(batch, mel_BTM=mel_BTM),))
    assert train_step(learner, dataclasses.replace(batch, mel_BTM=mel_BTM), tiny, 2).evidence is None
