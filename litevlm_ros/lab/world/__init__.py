"""The demo model's world: rendered street scenes, and what is true of them."""
