"""RepTok: one continuous token per image."""
