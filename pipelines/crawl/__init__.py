"""From a URL to a picture: guard, fetch, manners of a robot, decode, resize."""
