from ._moments import moments as moments
