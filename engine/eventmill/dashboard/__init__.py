"""The dashboard: static files that ask the query API; any ingest worker serves them."""
