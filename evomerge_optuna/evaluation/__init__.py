"""Evaluation: tasks, metrics and the text a model generates."""
