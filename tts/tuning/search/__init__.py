"""What is searched, how the next values are chosen, which trials are ended early, and what a trial is worth."""
