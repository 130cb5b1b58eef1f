"""What a user keeps of features: marks, tags, notes. Theirs, and no cache."""
