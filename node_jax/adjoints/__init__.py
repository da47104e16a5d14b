"""Gradient strategies, one in each module."""
