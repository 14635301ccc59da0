"""What is minimised, term by term."""
