"""Engines that run a bundle's graphs. One file each."""
