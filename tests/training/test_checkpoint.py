import hashlib
import logging
import pickle
from pathlib import Path

import pytest
import torch

from tts.config.load import override
from tts.errors import CannotWriteError, DataError, UsageError
from tts.progress import Silent
from tts.training.checkpoint import Checkpoints, Entry, check_resumable, load_model
from tts.training.loop import train
from tts.training.preemption import StopFlag

CPU = torch.device("cpu")


def _fill(folder, losses, keep):
    checkpoints = Checkpoints(folder)
    for step, loss in losses.items():
        checkpoints.save(step, {"weights": torch.full((1000,), float(step))}, mel_loss=loss, keep=keep)
    return checkpoints


def _steps(checkpoints):
    files = sorted(int(path.stem.removeprefix("step-")) for path in checkpoints.folder.glob("step-*.pt"))
    assert files == [entry.step for entry in checkpoints.index().checkpoints]
    return files


@pytest.mark.parametrize(
    ("losses", "keep", "kept"),
    [
        ({1: 5.0, 2: 4.0, 3: 3.0, 4: 2.0}, 2, [3, 4]),
        ({1: 5.0, 2: 1.0, 3: 3.0, 4: 2.0, 5: 4.0}, 2, [2, 4, 5]),
        ({1: 1.0, 2: 1.0, 3: 1.0}, 1, [1, 3]),
        ({1: None, 2: None, 3: None}, 1, [3]),
        ({1: float("nan"), 2: 9.0, 3: float("inf"), 4: None}, 1, [2, 4]),
    ],
)
def test_the_newest_and_the_best_stay(tmp_path, losses, keep, kept):
    assert _steps(_fill(tmp_path, losses, keep)) == kept


def test_what_is_read_is_what_was_saved(tmp_path):
    checkpoints = _fill(tmp_path, {1: None, 2: None}, keep=3)
    content = checkpoints.newest(CPU)
    assert content["step"] == 2
    assert torch.equal(content["weights"], torch.full((1000,), 2.0))


def test_saving_an_earlier_step_drops_the_future(tmp_path):
    checkpoints = _fill(tmp_path, {1: 3.0, 2: 2.0, 3: 1.0}, keep=3)
    checkpoints.save(2, {"weights": torch.zeros(1)}, mel_loss=2.5, keep=3)
    assert _steps(checkpoints) == [1, 2]
    assert checkpoints.index().best_entry.step == 2


def test_a_run_without_checkpoints_has_no_newest(tmp_path):
    assert Checkpoints(tmp_path).newest(CPU) is None
    with pytest.raises(DataError, match="holds no checkpoint"):
        load_model(tmp_path)


def _cut(path: Path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [_cut, _flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path, damage, caplog):
    checkpoints = _fill(tmp_path, {1: None, 2: None}, keep=2)
    damage(checkpoints.folder / "step-00000002.pt")
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest(CPU)["step"] == 1
    assert "step-00000002.pt is damaged" in caplog.text
    damage(checkpoints.folder / "step-00000001.pt")
    with pytest.raises(DataError, match=r"every checkpoint in .* is damaged"):
        checkpoints.newest(CPU)


def test_a_removed_checkpoint_is_passed_over_with_a_warning(tmp_path, caplog):
    checkpoints = _fill(tmp_path, {1: 1.0, 2: 2.0}, keep=2)
    (checkpoints.folder / "step-00000001.pt").unlink()
    with caplog.at_level(logging.WARNING):
        assert checkpoints.index().best_entry.step == 2
    assert "step-00000001.pt was removed" in caplog.text


@pytest.mark.parametrize("text", ["", "{", '{"checkpoints": [{"step": "x"}]}', "\xff"])
def test_a_damaged_index_is_named(tmp_path, text):
    checkpoints = _fill(tmp_path, {1: None}, keep=1)
    (checkpoints.folder / "index.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"index\.json is damaged"):
        checkpoints.newest(CPU)


class _Harmful:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_checkpoint_cannot_run_code(tmp_path):
    checkpoints = _fill(tmp_path, {1: None}, keep=1)
    path, trace = checkpoints.folder / "step-00000001.pt", tmp_path / "trace"
    torch.save({"format": 2, "step": 1, "weights": _Harmful(trace)}, path, pickle_module=pickle)
    entry = Entry(step=1, file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), mel_loss=None)
    with pytest.raises(DataError, match=r"step-00000001\.pt cannot be read"):
        checkpoints.read(entry, CPU)
    assert not trace.exists()


def test_another_format_is_refused(tmp_path):
    checkpoints = _fill(tmp_path, {1: None}, keep=1)
    path = checkpoints.folder / "step-00000001.pt"
    torch.save({"format": 99}, path)
    entry = Entry(step=1, file=path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest(), mel_loss=None)
    with pytest.raises(DataError, match="has format 99, this version reads 2"):
        checkpoints.read(entry, CPU)


def test_a_full_disk_leaves_the_checkpoints_as_they_were(tmp_path, file_size_limit):
    checkpoints = _fill(tmp_path, {1: 1.0}, keep=1)
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}
    with file_size_limit(2000), pytest.raises(CannotWriteError, match=r"step-00000002\.pt"):
        checkpoints.save(2, {"weights": torch.zeros(1000)}, mel_loss=None, keep=1)
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before


@pytest.fixture(scope="module")
def trained(store, tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("trained") / "run"
    list(train(store, override(tiny, {"training.steps": 4, "training.validation_interval": 2}), run, progress=Silent(), stop=StopFlag()))
    return run


def test_a_loaded_model_is_the_best_and_speaks(trained, store, tiny):
    loaded = load_model(trained)
    best = Checkpoints(trained).index().best_entry
    assert loaded.step == best.step
    assert loaded.fingerprint == store.fingerprint
    assert loaded.symbol_table == store.symbol_table
    assert loaded.config.model == tiny.model
    assert not loaded.model.training
    saved = Checkpoints(trained).read(best, CPU)["model"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in loaded.model.state_dict().items())
    symbols_BN = torch.tensor([loaded.symbol_table.encode("hello")])
    speech = loaded.model.synthesise(symbols_BN, torch.tensor([6]), max_frames_B=torch.tensor([10]), gate_threshold=0.5, seed=0)
    assert speech.mel_BTM.isfinite().all()


def test_a_best_checkpoint_cut_in_half_is_named_and_its_remedy_works(trained, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for path in (trained / "checkpoints").iterdir():
        (run / "checkpoints" / path.name).write_bytes(path.read_bytes())
    best = run / "checkpoints" / Checkpoints(run).index().best_entry.file
    _cut(best)
    with pytest.raises(DataError, match=rf"{best.name} is damaged.*restore it from a copy, or delete it"):
        load_model(run)
    best.unlink()
    assert load_model(run).step != int(best.stem.removeprefix("step-"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model.prenet": 16}, "model.prenet is 16, the run has 12"),
        ({"optimiser.learning_rate": 0.5}, "optimiser.learning_rate is 0.5"),
        ({"training.seed": 9}, "training.seed is 9"),
        ({"data.frame_budget": 5000}, "data.frame_budget is 5000"),
        ({"losses.gate_weight": 2.0, "guided_attention.sigma": 0.3}, "losses.gate_weight is 2.0.*guided_attention.sigma is 0.3"),
        ({"training.steps": 2}, "training.steps is 2, the run has made 4"),
    ],
)
def test_a_run_of_another_configuration_is_refused_naming_the_difference(trained, store, change, named):
    content = Checkpoints(trained).newest(CPU)
    config = override(load_model(trained).config, change)
    with pytest.raises(UsageError, match=named):
        check_resumable(content, config, store.fingerprint, trained)


def test_features_with_another_fingerprint_are_refused(trained, store):
    content = Checkpoints(trained).newest(CPU)
    with pytest.raises(UsageError, match=f"fingerprint is 0123456789abcdef, the run has {store.fingerprint}"):
        check_resumable(content, load_model(trained).config, "0123456789abcdef", trained)


def test_what_changes_no_step_may_change(trained, store):
    content = Checkpoints(trained).newest(CPU)
    changes = {"training.steps": 50, "training.log_interval": 7, "training.keep_checkpoints": 1, "training.threads": 2, "tuning.trials": 9}
    check_resumable(content, override(load_model(trained).config, changes), store.fingerprint, trained)
