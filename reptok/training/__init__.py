"""Training of the tokenizer and of the generator: state, step, loop, checkpoints."""
