"""The real-time store: ClickHouse, by default embedded (chdb) and spoken to through clickhouse-connect."""
