"""From enriched to the stores."""
