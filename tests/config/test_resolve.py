"""Later sources win; what was prepared stays."""

import pytest

from tts.config import Config
from tts.config.load import override, to_json
from tts.config.presets import demo, small
from tts.config.resolve import config_of, overrides_from_json, resolve
from tts.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(to_json(override(demo(), {"audio.mels": 40, "text.language": "ru", "training.steps": 77})))
    return tmp_path


def test_without_a_folder_the_defaults_are_the_base():
    assert resolve() == Config()
    assert resolve(name="demo") == demo()


def test_the_folders_configuration_is_the_base(folder):
    config = resolve(folder=folder)
    assert (config.audio.mels, config.training.steps, config.model) == (40, 77, demo().model)


def test_a_preset_leaves_what_was_prepared(folder):
    config = resolve(folder=folder, name="small")
    assert (config.audio.mels, config.text.language) == (40, "ru")
    assert (config.model, config.training) == (small().model, small().training)


def test_file_over_preset_and_knobs_over_file(folder, tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text("training: {steps: 5, seed: 6}\n")
    config = resolve(folder=folder, name="small", file=file, overrides={"training.steps": "9"})
    assert (config.training.steps, config.training.seed, config.model) == (9, 6, small().model)


def test_folders_without_a_configuration(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        config_of(tmp_path / "no")
    with pytest.raises(DataError, match=r"has no config\.json"):
        config_of(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        config_of(tmp_path / "file")
    (tmp_path / "config.json").write_text('{"training": {"steps": ')
    with pytest.raises(DataError, match=r"cannot be read.*make it anew"):
        config_of(tmp_path)


@pytest.mark.parametrize("text", ["[1]", "{training.steps: 3}", "3", "{"])
def test_overrides_must_be_an_object(text):
    with pytest.raises(UsageError, match="overrides must be a JSON object"):
        overrides_from_json(text)


def test_overrides():
    assert overrides_from_json("") == {}
    assert overrides_from_json(' {"training.steps": 3}') == {"training.steps": 3}
