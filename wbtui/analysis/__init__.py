"""Pure functions from tensors to per-feature rows (methods 1.2). No files, no sockets, no Textual."""
