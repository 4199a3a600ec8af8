"""Who may come in, how often, how many at once and for how long."""
