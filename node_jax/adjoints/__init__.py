"""Gradient strategies, one a file."""
