"""How well a model sees the demo's street world: exercises, answers to them, scores, and a report."""
