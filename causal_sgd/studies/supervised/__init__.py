"""Linear environments: explicit and implicit invariance on the same draws."""
