"""A trial waits for a person's score, given through the dashboard's own web application.

Covers evaluation.person, too.
"""
