"""Families: the kinds of models, which of their tensors are merged, and how a merge is written."""
