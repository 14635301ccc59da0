"""The pipeline, its compilation and its local run."""
