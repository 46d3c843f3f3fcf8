"""Datasets on disk and the caches training reads."""
