"""The unit of work: `compute_shard(task)`, with the weights it needs resident between shards."""
