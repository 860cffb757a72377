"""Camera images: tiling, and the selection of views and visual tokens."""
