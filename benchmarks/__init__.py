"""Comparisons with other packages, run for real."""
