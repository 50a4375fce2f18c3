"""The options of matrix sensing: one table per choice, next to the fields that its rows use.

From the tables follow the choices, the checks of combinations, which fields take effect, where
theory's curve applies, and the arguments of every part; from the fields the sweepable numbers and
the flags of the command line.
"""
