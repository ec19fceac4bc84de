"""Looking at the running system: metrics, the ledger's audit, one event's fate."""
