"""The training loops that run inside Ray Train's workers."""
