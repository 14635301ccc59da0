"""The pipeline: its source, its compilation, its run on this machine, and its way to a Kubeflow Pipelines server."""

from pathlib import Path

COMPILED = Path(__file__).parent / "compiled" / "training.yaml"
"""The committed file."""
