"""Mechanisms of attention behind one interface (mechanism.py), each in a module of its own."""
