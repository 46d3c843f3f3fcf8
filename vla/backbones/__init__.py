"""Backbones: observation -> memory. One file each; the stem is the name."""
