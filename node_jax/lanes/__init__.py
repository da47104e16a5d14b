"""The primitive of a solve, and the linear maps that its derivatives are."""
