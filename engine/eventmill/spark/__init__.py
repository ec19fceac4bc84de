"""Jobs for Apache Spark, whose executors have Eventmill installed."""
