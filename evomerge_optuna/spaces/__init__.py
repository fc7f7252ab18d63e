"""Search spaces: from an Optuna trial to a recipe."""
