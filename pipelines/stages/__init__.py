"""Stages: one recipe card per file, from published artifacts to one new artifact.

What is heavy (networks, HTTP clients, plots) a stage imports when it runs, so that planning loads none of it,
and names in its `modules`.
"""
