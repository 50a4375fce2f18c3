"""What several test modules share: cases, oracles and builders. Tests import no other test module."""
