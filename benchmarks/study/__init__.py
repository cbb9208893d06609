"""The study: what sequential belief keeps and foretells, against the best that is known."""
