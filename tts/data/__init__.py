"""Corpora, quality control, the feature store and batches."""
