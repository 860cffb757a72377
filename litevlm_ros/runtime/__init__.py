"""Runs the two graphs of a model, on TensorRT or on ONNX Runtime."""
