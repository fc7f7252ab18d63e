"""Vision-language models: their text part is merged, the rest is kept as it is."""
