"""Adapters merged into one: arithmetic, the merger, and the base model that a merge is put on."""
