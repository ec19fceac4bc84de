"""Real servers for tests, benches and developers: Apache Kafka, Redis, each in a folder of its own, on free ports.

``python -m testbed kafka`` runs one in the foreground; tests use the fixtures of ``tests/conftest.py``.
"""
