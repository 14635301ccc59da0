"""What works here, found out by trying."""

import pytest

from tts import doctor
from tts.config import TrackingConfig
from tts.doctor import Check, failure
from tts.errors import ServiceUnavailableError


@pytest.fixture(scope="module")
def checks() -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(TrackingConfig(backend="jsonl"))}


def test_what_training_needs_works_where_the_tests_run(checks):
    assert [check for check in checks.values() if check.needed and not check.works] == []
    assert failure(list(checks.values())) is None
    assert "computes on" in checks["torch"].detail
    assert checks["espeak-ng"].detail.startswith("spoke a sentence of ")


def test_a_missing_device_is_no_failure(checks):
    assert not checks["cuda"].needed
    assert not checks["bf16"].needed


def test_a_server_that_is_down(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    check = next(check for check in doctor.examine(TrackingConfig(uri="http://127.0.0.1:9")) if check.name == "tracking")
    assert not check.works
    assert "127.0.0.1:9 is out of reach" in check.detail
    assert check.exit_code == 69


def test_the_exit_code_says_whether_a_service_is_all_that_is_missing():
    down = Check("tracking", works=False, needed=True, detail="", exit_code=69)
    broken = Check("torch", works=False, needed=True, detail="", exit_code=1)
    unneeded = Check("cuda", works=False, needed=False, detail="", exit_code=1)
    assert isinstance(failure([down, unneeded]), ServiceUnavailableError)
    error = failure([down, broken, unneeded])
    assert error is not None
    assert (error.exit_code, str(error)) == (1, "does not work here: tracking, torch")


def test_little_disk_and_memory_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "NEEDED_DISK", 2**62)
    monkeypatch.setattr(doctor, "NEEDED_MEMORY", 2**62)
    checks = {check.name: check for check in doctor.examine(TrackingConfig(backend="none"))}
    assert not checks["disk"].works
    assert "GiB are needed" in checks["disk"].detail
    assert not checks["memory"].works


def _object_store() -> Check | None:
    return next((check for check in doctor.examine(TrackingConfig(backend="none")) if check.name == "object store"), None)


def test_an_object_store_that_the_environment_names(bucket, monkeypatch):
    found = _object_store()
    assert found is not None
    assert (found.works, found.needed) == (True, False)
    assert "http://127.0.0.1" in found.detail
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    found = _object_store()
    assert found is not None
    assert (found.works, found.exit_code) == (False, 69)
    assert found.detail.startswith("object store http://127.0.0.1:9 is out of reach after retries")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    assert _object_store() is None
