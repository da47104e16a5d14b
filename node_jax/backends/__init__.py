"""How each platform compiles the marks that the engine sets."""
