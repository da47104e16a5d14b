"""What a platform makes of the marks that the engine sets."""
