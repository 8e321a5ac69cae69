"""How trained models are judged: what to look at, against which baselines, and how to write it down."""
