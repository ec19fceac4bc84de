"""Faults on purpose, judged by the oracle: ``python -m faults`` runs the matrix and writes docs/faults.md."""
