"""`python -m priorflow`: the same as the command `priorflow`."""

from priorflow.cli import main

main()
