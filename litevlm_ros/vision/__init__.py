"""Camera views: selection, tiling, encoding to visual tokens, and selection of those."""
