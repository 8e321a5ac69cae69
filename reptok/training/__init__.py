"""Training of the tokenizer and of the generator: state, step, loop and checkpoints, on any number of processes."""
