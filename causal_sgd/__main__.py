"""`python -m causal_sgd` is `causal-sgd`."""

from causal_sgd.cli import main

if __name__ == "__main__":
    main()
