"""A trial in a child process: nothing of it stays in the worker, and it ends with its worker."""
