"""Schemas of events: where they come from, which are in force, and how a batch is checked against them."""
