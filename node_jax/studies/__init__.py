"""Complete studies with data that comes with the package."""
