"""Training of the demo model, its tokenizer, its draft head, its token scorer and its view selector."""
