"""Hours of running: what a node takes and how fast it answers over time, and whether either drifts."""
