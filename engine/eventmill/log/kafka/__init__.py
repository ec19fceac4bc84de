"""The log on Apache Kafka, for many machines."""
