"""Auxiliary training objectives. One file each; the stem is the name. They cost nothing at run time."""
