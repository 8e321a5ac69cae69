"""Measurements against the libraries that others would use: `make bench`."""
