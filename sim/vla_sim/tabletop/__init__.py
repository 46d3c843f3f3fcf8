"""What suite `tabletop` is made of: its tasks, expert, features, probes, and the same robot out of calibration."""
