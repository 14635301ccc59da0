"""Merging parts of pods as Kubernetes does: lists of named things by their names (strategic merge)."""

from collections.abc import Mapping
from typing import Any

MERGED = {"containers": "name", "initContainers": "name", "topologySpreadConstraints": "topologyKey", "imagePullSecrets": "name"}
"""Lists whose entries of one name are merged."""
REPLACED = {"env": "name", "volumes": "name", "volumeMounts": "mountPath"}
"""Lists whose entries of one name are replaced: half of one and half of another, a value and a reference to one, is neither."""
UNITED = ("tolerations",)
"""Lists without names."""


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A new tree in which what `above` says wins; what it says as None is taken away."""
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = merged(old if isinstance(old, Mapping) else {}, value)
        elif isinstance(value, list) and isinstance(old, list):
            result[name] = _merged_list(name, old, value)
        else:
            result[name] = value
    return result


def _merged_list(name: str, below: list[Any], above: list[Any]) -> list[Any]:
    if name in UNITED:
        return below + [entry for entry in above if entry not in below]
    key = MERGED.get(name) or REPLACED.get(name)
    if key is None:
        return above
    entries = {entry[key]: entry for entry in below}
    for entry in above:
        old = entries.get(entry[key], {})
        entries[entry[key]] = merged(old, entry) if name in MERGED else entry
    return list(entries.values())
