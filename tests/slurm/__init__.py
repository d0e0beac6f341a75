"""`make test-slurm`: the smoke workflow through a real SLURM of one node."""
