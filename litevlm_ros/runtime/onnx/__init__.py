"""The backend on ONNX Runtime, for the CPU."""
