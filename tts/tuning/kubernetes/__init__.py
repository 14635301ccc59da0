"""Trial pods: one Indexed Job of Kubernetes for a study, watched, adopted, and ended with it."""
