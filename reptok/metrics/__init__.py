"""Metrics of reconstructions and samples: pixels, features, neighbours, texts."""
