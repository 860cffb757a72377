"""Filling a model directory: checkpoints from a Hugging Face hub or from disk, and engines that others have built."""
