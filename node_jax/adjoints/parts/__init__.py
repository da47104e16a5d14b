"""Parts that the adjoints share."""
