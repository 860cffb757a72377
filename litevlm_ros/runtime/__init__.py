"""Backends that run the two graphs."""
