"""Stages: one recipe card per file, from published artifacts to one new artifact."""
