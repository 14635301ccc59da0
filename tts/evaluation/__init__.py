"""Free-running synthesis, its metrics, the report and the registry."""
