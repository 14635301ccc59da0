"""Studies beyond their workers: export and import, warm starts, changing and deleting."""
