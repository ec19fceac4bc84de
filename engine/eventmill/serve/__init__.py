"""Everything in one: the engine (process, rescue, sinks, query) and the ingest workers beside it."""
