"""Captioned pictures that a Debian package ships, as a folder that `data=folder` reads."""
