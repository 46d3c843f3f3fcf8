"""Post-training: make a policy better with what it met in its own rollouts. One file each; the stem is the name."""
