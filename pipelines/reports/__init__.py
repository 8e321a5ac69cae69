"""What a person reads and looks at in the end: summary, report, pictures, model card."""
