"""What adjoints are made of."""
