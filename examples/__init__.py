"""Small things built on priorflow from outside."""
