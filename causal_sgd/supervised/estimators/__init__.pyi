from ._least_squares import pooled as pooled
