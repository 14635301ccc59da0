"""Of what odd transcripts are put together, in any language."""

NUMBERS = ("0", "1", "12", "1,000", "1 000", "1984", "7" * 16, "9" * 41, "\u0663")
