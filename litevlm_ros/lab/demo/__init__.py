"""A procedural street world with ground truth: scenes, renderer, questions."""
