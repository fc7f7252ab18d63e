"""Studies: storage, sampler, objective and the loop that runs trials."""
