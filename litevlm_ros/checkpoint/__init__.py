"""Weights of a model directory as they lie in its safetensors files: names, places and checks, without PyTorch."""
