"""Cameras, arm, clocks and verifier scores, calibrated."""
