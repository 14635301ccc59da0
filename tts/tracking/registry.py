"""Versions of a voice in MLflow's model registry, asked for and answered at once."""

from collections.abc import Mapping
from pathlib import Path

from tts.tracking.json_lines import content_hash
from tts.tracking.mlflow_store import MlflowStore
from tts.tracking.protocol import CHAMPION, Champion, Registration, judge, split


def register(
    store: MlflowStore, files: Path, *, name: str, run: str, metrics: Mapping[str, float], compare: str, fingerprint: str, passed: bool
) -> Registration:
    """Copies the files into the artefacts of `run` (the store's id), registers them, and crowns the version if it is better."""
    finite, _ = split(metrics)
    version = _version(store, files, name, run)
    tags = {**{f"metric.{key}": repr(value) for key, value in finite.items()}, "fingerprint": fingerprint, "passed": str(passed).lower()}
    for key, text in tags.items():
        store.ask("set_model_version_tag", name, str(version), key, text)
    champion = _champion(store, name, compare)
    value = finite.get(compare, float("nan"))
    best, reason = judge(value, version=version, compare=compare, fingerprint=fingerprint, passed=passed, champion=champion)
    if best:
        store.ask("set_registered_model_alias", name, CHAMPION, str(version))
    store.ask("set_model_version_tag", name, str(version), "verdict", reason)
    return Registration(name, version, best, reason)


def _version(store: MlflowStore, files: Path, name: str, run: str) -> int:
    digest = content_hash(files)
    if not store.ask("search_registered_models", f"name = '{name}'"):
        store.ask("create_registered_model", name)
    for known in store.ask("search_model_versions", f"name = '{name}'"):
        if known.tags.get("files") == digest:
            return int(known.version)
    store.ask("log_artifacts" if files.is_dir() else "log_artifact", run, str(files), "model")
    source = f"{store.ask('get_run', run).info.artifact_uri}/model"
    return int(store.ask("create_model_version", name, source=source, run_id=run, tags={"files": digest}).version)


def _champion(store: MlflowStore, name: str, compare: str) -> Champion | None:
    number = store.ask("get_registered_model", name).aliases.get(CHAMPION)
    if number is None:
        return None
    tags = store.ask("get_model_version", name, str(number)).tags
    return Champion(int(number), float(tags.get(f"metric.{compare}", "nan")), tags.get("fingerprint", ""))
