"""Cases, oracles and builders that test modules share; they do not import each other."""
