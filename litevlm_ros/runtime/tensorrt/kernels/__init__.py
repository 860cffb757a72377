"""The package's own CUDA kernels, one concept in each .cu file, and what compiles and launches them."""
