"""The backend on ONNX Runtime, for CPUs."""
