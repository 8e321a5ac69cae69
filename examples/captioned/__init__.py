"""Two sets of captioned pictures that Debian packages ship, as folders that `data=folder` reads."""
