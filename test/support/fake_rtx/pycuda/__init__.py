"""Stands for pycuda in processes that compile kernels."""
