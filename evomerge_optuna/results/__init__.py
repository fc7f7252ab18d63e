"""Results: what finished trials are worth."""
