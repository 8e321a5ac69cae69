"""The workflow engine: stages, immutable artifacts, resume. It knows no stage, model or data format."""
