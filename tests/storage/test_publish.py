"""Folders in an object store and back."""

import hashlib
import json

from tts.storage import exists, fetch, publish


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


FILES = {"a": b"1", "deep/er/b.bin": bytes(range(256)) * 10, "empty": b"", "with spaces/ünï-дом #?%41+&.txt": "дом".encode(), ".hidden": b"x"}


def test_there_and_back(bucket, tmp_path):
    source = write(tmp_path / "source", FILES)
    publish(source, f"{bucket.uri}/some folder/features")
    manifest = json.loads(bucket.get("some folder/features/.manifest.json"))
    assert [file["name"] for file in manifest["files"]] == sorted(FILES)
    assert {file["name"]: file["sha256"] for file in manifest["files"]} == {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert sorted(bucket.keys()) == sorted(f"some folder/features/{name}" for name in [*FILES, ".manifest.json"])
    assert exists(f"{bucket.uri}/some folder")
    assert fetch(f"{bucket.uri}/some folder/features/", tmp_path / "back") == tmp_path / "back"
    assert tree(tmp_path / "back") == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "source"]
