"""The backend on TensorRT, for NVIDIA GPUs."""
