from ._least_squares import anchor as anchor
from ._least_squares import causal_dantzig as causal_dantzig
from ._least_squares import oracle as oracle
from ._least_squares import pooled as pooled
from ._least_squares import without as without
from ._search import eills as eills
from ._search import fair as fair
