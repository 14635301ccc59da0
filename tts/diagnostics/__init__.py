"""Measures of attention and gate, and the debug report."""
