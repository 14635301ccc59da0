from pathlib import Path

import tts
from tts.tuning.source import DECISIVE, essence, source_fingerprint

FUNCTION = '''
def area(width: float, height: float = 2.0) -> float:
    """Square metres."""
    return width * height  # by hand
'''


def test_words_and_layout_do_not_make_another_code():
    again = 'def area(width: float,\n    height: float = 2.0) -> float:\n    "Acres."\n    # as Euclid\n    return (width *\n        height)\n'

    assert essence(FUNCTION) == essence(again)


def test_whatever_runs_differently_is_another_code():
    changes = [("width * height", "width + height"), ("2.0", "2"), ("area", "size"), ("return width", "return height"), (" = 2.0", "")]

    known = {essence(FUNCTION), *(essence(FUNCTION.replace(*change)) for change in changes)}

    assert len(known) == 1 + len(changes)


def test_the_decisive_files_are_there_and_the_fingerprint_is_theirs(monkeypatch, tmp_path):
    root = Path(tts.__file__).parent
    assert all((root / name).exists() for name in DECISIVE)
    for name in DECISIVE:
        file = tmp_path / (name if name.endswith(".py") else f"{name}/part.py")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x = 1\n")

    def fingerprint():
        source_fingerprint.cache_clear()
        return source_fingerprint()

    ours = fingerprint()
    monkeypatch.setattr(tts, "__file__", str(tmp_path / "__init__.py"))
    first = fingerprint()
    (tmp_path / "cli.py").write_text("x = 1\n")
    unchanged = fingerprint()
    (tmp_path / "model" / "part.py").write_text("x = 2\n")
    changed = fingerprint()
    monkeypatch.undo()

    assert len({ours, first, changed}) == 3
    assert unchanged == first
    assert fingerprint() == ours
