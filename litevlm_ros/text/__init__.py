"""Prompts, tokens and decoding strategies."""
