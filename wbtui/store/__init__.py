"""The cache on disk: keys, shards, columns, manifests, integrity. Readers need numpy only."""
