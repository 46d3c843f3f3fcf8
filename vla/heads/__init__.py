"""Action heads: memory and noise -> action chunks. One file each; the stem is the name."""
