"""Robosuite's Panda, for every suite built on it: the environment, the scene, the controller, what probes change."""
