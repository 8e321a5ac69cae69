"""Frozen networks over shards: latents, tokens, and the device on which they are computed."""
