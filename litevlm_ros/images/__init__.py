"""From the bytes of camera images to RGB pictures, and text on pictures."""
