"""Demo, training, evaluation and benchmarks: everything that a robot does not need."""
