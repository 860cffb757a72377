"""Builds TensorRT engines, records what each was built for, and checks whether it fits this machine."""
