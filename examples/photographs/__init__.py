"""The embedded default: a corpus of real photographs that needs no network."""
