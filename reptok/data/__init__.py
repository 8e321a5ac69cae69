"""Data at rest and on its way into a network: columns, tar shards, packed blocks, image transforms."""
