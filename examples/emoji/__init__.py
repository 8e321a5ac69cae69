"""Noto Color Emoji with captions: plain, and composed so that the captions say exactly what one sees."""
