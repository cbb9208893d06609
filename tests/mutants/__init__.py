"""Deliberate bugs, each of which a law must catch: `make mutants`."""
