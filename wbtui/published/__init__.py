"""Top tokens of features as others have published them, kept as data (README.md here has the format)."""
