"""Where weights come from: only the named tensors, never a model instance."""
