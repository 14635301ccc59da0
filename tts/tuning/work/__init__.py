"""A worker: takes trials, attempts them one after the other, and beats for the one in its hands."""
