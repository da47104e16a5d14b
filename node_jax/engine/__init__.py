"""The engine: the steps of one lane, and how many lanes take theirs together."""
