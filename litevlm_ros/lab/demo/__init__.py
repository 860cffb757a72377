"""The demonstration: camera images without cameras, and a client that shows captions and asks questions."""
