"""The first thing to run where there is a hub and a GPU: real weights, held against what publishers state."""
