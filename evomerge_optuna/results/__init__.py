"""Results: which trial is the best, its final scores, and studies compared."""
