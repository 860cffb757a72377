"""Filling of a model directory: checkpoints from a Hugging Face hub or from disk, and engines built elsewhere."""
