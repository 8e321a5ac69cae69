"""Ops: what is done to one batch of rows inside a data stage. One op per file."""
