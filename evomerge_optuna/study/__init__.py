"""Studies: what is stored of them, creating and opening them, their trials as read."""
