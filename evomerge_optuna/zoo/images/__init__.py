"""The zoo's image models: tiny diffusion pipelines that draw one coloured shape, and their CLIP."""
