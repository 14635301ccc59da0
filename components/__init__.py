"""Thin Kubeflow Pipelines components: one call into tts each."""
