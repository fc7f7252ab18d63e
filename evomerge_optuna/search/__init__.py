"""Search: samplers, the objective, and the workers that run trials."""
