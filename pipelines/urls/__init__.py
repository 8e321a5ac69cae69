"""Lists of URLs: what is selected from them, what is twice, what a filter drops and why."""
