"""The training step, the loop, and what keeps a run whole."""
