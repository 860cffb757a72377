"""CUDA kernels of this package, compiled when a model is loaded."""
