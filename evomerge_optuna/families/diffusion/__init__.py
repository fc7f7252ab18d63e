"""Pipelines of diffusers, which draw pictures: their denoisers are merged."""
