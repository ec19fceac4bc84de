"""The log's backends."""
