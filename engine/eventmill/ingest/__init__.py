"""HTTP in, durable frames out."""
