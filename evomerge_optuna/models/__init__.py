"""Models: where they come from, whether they fit together, and what they hash to."""
