"""How a training notices that it went wrong, and goes back to where it was well: the rules of docs/recovery.md."""
