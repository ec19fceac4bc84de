"""What every other package shares: schemas, configuration, errors, the clock and the protocols."""
