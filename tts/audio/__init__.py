"""Recordings into mel frames, and mel frames into sound."""
