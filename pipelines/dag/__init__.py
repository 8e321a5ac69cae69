"""The workflow engine: stages, immutable artifacts, resume. It knows no stage, no model and no data format."""
