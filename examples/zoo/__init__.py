"""How the small weights of the embedded default are trained: recipes, pure functions of their config."""
