"""From raw to enriched: stages over batches, snapshots, recovery, and the rescue of false suspects."""
