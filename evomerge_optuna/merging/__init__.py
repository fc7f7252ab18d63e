"""Mergers: from a recipe to weights."""
