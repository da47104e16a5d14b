"""The engine: what one lane does, and how many lanes do it together."""
