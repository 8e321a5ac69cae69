"""From a URL to a picture: guard, fetch, a robot's limits, decode, resize."""
