"""The study: space, storage, objective, workers."""
