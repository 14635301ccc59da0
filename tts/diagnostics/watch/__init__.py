"""A run under way in the terminal: what `tts watch` shows."""
