"""Measurements of a model and of the node: times, memory, kernels, load, and the limits of the hardware."""
