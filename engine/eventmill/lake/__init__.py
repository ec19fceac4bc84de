"""The lake: an Iceberg table over Parquet files, exactly once by offsets in every snapshot's summary."""
