"""TensorRT engines: what they are built for, how they are built, and whether they fit this machine."""
