"""The zoo: tiny models to try things with, and the problems they are trained on."""
