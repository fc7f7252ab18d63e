"""Engines: models that can be asked. They know nothing of tasks."""
