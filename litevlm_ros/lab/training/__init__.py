"""Training of the demo model. PyTorch is imported here."""
