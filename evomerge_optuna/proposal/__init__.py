"""Specs that this program writes for a user: what is proposed, from what was read."""
