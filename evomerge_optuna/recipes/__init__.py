"""Recipes: the complete descriptions of merged models."""
