"""How transformations of JAX reach the engine."""
