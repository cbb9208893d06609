"""What priorflow costs and what it is worth, measured; results are committed beside the scripts."""
