"""Evaluation of a model on held-out scenes of the street world: replies, scores, and the paper's table."""
