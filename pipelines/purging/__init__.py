"""Deleting what was made of those who opted out."""
