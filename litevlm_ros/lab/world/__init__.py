"""The demo model's world: street scenes with known contents, their pictures, captions and questions."""
