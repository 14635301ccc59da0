"""The network: encoder, attention, decoder, postnet."""
