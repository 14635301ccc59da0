import json
import shutil

import numpy as np
import pytest
import torch

from tests.chaos.training.sameness import differences


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "copy")


def test_a_run_is_itself(trained, copy):
    assert differences(copy, trained) == []


def test_the_clock_does_not_count(trained, copy):
    for line in (lines := [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]):
        line["seconds"] += 1
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert differences(copy, trained) == []


def test_one_bit_of_adam(trained, copy):
    index = json.loads((copy / "checkpoints" / "index.json").read_text())
    newest = copy / "checkpoints" / index["checkpoints"][-1]["file"]
    content = torch.load(newest, weights_only=True)
    moment = content["optimiser"]["state"][2]["exp_avg_sq"].view(torch.int32)
    moment.view(-1)[0] ^= 1
    torch.save(content, newest)

    found = differences(copy, trained)

    assert any(text.startswith("the newest checkpoint differs at /optimiser/state/2/exp_avg_sq: float32") for text in found)


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json", "config.json"])
def test_a_digit_of_a_file(trained, copy, name):
    path = copy / name
    path.write_text(path.read_text().replace('"step": 6', '"step": 7').replace('"steps": 6', '"steps": 7'))

    (found,) = differences(copy, trained)

    assert found.startswith(f"{name} differs at ")
    assert found.endswith("int 7, not int 6")


def test_a_cell_of_a_snapshot(trained, copy):
    path = max((copy / "snapshots").iterdir())
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["gate_BT"][0, 0] = np.nextafter(arrays["gate_BT"][0, 0], np.float32(2))
    np.savez(path, **arrays)

    (found,) = differences(copy, trained)

    assert found.startswith(f"snapshots/{path.name} differs at /gate_BT: ")


def test_files_that_are_missing_or_left(trained, copy):
    (copy / "config.json").unlink()
    (copy / "snapshots" / ".step-00000007.npz.x.partial").touch()

    assert differences(copy, trained) == ["config.json is not there", "snapshots/.step-00000007.npz.x.partial is there and should not be"]


def test_a_run_without_checkpoints(trained, copy):
    shutil.rmtree(copy / "checkpoints")

    assert [text.split(" at ")[0] for text in differences(copy, trained)] == ["the newest checkpoint differs", "the best checkpoint differs"]
