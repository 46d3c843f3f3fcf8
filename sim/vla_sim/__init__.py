"""Simulated robots: environments, suites of tasks, experts, collection and evaluation. Only here: MuJoCo."""
