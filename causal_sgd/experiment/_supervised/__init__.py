"""The options of regression in several environments: one table per choice, next to its fields."""
