"""Conversion of a checkpoint to ONNX graphs, for ONNX Runtime and for building TensorRT engines. Needs PyTorch."""
