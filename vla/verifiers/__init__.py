"""Verifiers: score candidate chunks, or refuse them. One file each; the stem is the name."""
