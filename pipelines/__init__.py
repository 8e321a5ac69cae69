"""The program around the library: data, training and evaluation as one workflow."""
