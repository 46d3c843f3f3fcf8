"""Post-training: make a policy better with what it met in its own rollouts. One file each, called from Python."""
