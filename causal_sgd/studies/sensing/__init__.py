"""Multi-environment matrix sensing: the implicit bias of heterogeneity."""
