"""The study as a Katib Experiment, for platforms that tune with Katib: the same space, image and trials, but Katib's algorithms."""
