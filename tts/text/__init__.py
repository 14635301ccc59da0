"""Transcripts into symbols."""
