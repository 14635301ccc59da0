"""What each Dockerfile promises, read from its text: where it comes from, what may be installed, who runs it."""

import importlib.metadata
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from images.build import REPOSITORIES, ROOT

DOCKERFILES = sorted((ROOT / "images").glob("*/Dockerfile"))
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|ACCESS_KEY", re.IGNORECASE)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Each instruction's name and the rest, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(None, 1)[0].upper(), line.split(None, 1)[1]) for line in joined.splitlines() if line.strip()]


def locked(name: str = "runtime.txt") -> dict[str, str]:
    """Each package's version in a file of requirements."""
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))


def names(requirements: str) -> set[str]:
    return {line.strip() for line in requirements.splitlines() if line.strip() and not line.startswith("#")}


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.parent.name)
def dockerfile(request) -> Path:
    return request.param


def test_each_image_has_a_name_that_the_manifests_know():
    assert {path.parent.name for path in DOCKERFILES} == set(REPOSITORIES)


def test_its_base_is_an_argument_pinned_by_digest(dockerfile):
    steps = instructions(dockerfile)
    assert steps[0][0] == "ARG"
    assert re.fullmatch(r"BASE=\S+@sha256:[0-9a-f]{64}", steps[0][1])
    assert {rest.split()[0] for name, rest in steps if name == "FROM"} == {"${BASE}"}


def test_all_images_stand_on_one_base():
    assert len({instructions(path)[0] for path in DOCKERFILES}) == 1


def test_it_runs_as_a_user_that_is_a_number_and_not_root(dockerfile):
    users = [rest for name, rest in instructions(dockerfile) if name == "USER"]
    assert len(users) == 1
    assert re.fullmatch(r"[1-9]\d*:\d+", users[0])


def test_it_holds_no_secret_and_fetches_nothing_unchecked(dockerfile):
    for name, rest in instructions(dockerfile):
        assert name != "ADD", rest
        assert name not in {"ARG", "ENV"} or not SECRET.search(rest), rest
        assert not re.search(r"\b(curl|wget)\b", rest), rest


def test_what_is_installed_is_checked_by_hash(dockerfile):
    installs = [
        part for name, rest in instructions(dockerfile) if name == "RUN" for part in rest.split("&&") if re.search(r"pip install|uv build", part)
    ]
    for part in installs:
        of_torch, of_wheel = "-r /opt/tts/requirements/torch.txt" in part, part.rstrip().endswith("/wheel/*.whl")
        assert "--require-hashes" in part or of_torch or of_wheel, part
        assert "--no-cache" in part, part
    assert installs or "apt-get install" in dockerfile.read_text()


def test_layers_come_in_the_order_in_which_they_change():
    text = (ROOT / "images" / "tts" / "Dockerfile").read_text().rpartition("\nFROM ")[2]
    places = [text.index(part) for part in ("requirements/torch.txt", "requirements/runtime.txt", "COPY --from=program", "ARG REVISION")]
    assert places == sorted(places)
    assert "COPY tts" not in text


def test_what_torch_shares_with_the_rest_comes_by_hash():
    needed, found = ["torch"], set()
    while needed:
        name = needed.pop().lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        wanted = [Requirement(line) for line in requires]
        needed += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    shared = names((ROOT / "images" / "tts" / "shared.txt").read_text())
    assert found & set(locked()) <= shared
    assert shared <= set(locked())


def test_the_mlflow_server_is_the_clients_version_with_its_drivers():
    text = (ROOT / "images" / "mlflow" / "Dockerfile").read_text()
    pattern = re.search(r"grep -oE '([^']+)' runtime\.txt", text)[1]
    runtime = (ROOT / "requirements" / "runtime.txt").read_text()
    pins = re.findall(pattern.replace("(", "(?:"), runtime, re.MULTILINE)
    assert {pin.split("==")[0] for pin in pins} == {"mlflow", "boto3", "psycopg", "psycopg-binary"}


def test_the_context_is_what_images_are_built_from():
    rules = names((ROOT / ".dockerignore").read_text())
    wanted = {rest.split()[0].split("/")[0] for path in DOCKERFILES for name, rest in instructions(path) if name == "COPY" and "--from" not in rest}
    assert "*" in rules
    assert wanted <= {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
