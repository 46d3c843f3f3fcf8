"""Suites of tasks. One file each; found by entry point `vla.suites`."""
