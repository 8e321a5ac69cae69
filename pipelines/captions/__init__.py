"""Captions: written by a model, taken from alt-texts, and the gates between."""
