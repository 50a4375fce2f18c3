"""Studies of multi-environment matrix sensing."""
