"""A page in the browser on one model: generate, reconstruct, interpolate. Needs the extra `[app]`."""
