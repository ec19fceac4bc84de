"""Eventmill: a mobile analytics engine, from app event to dashboard, that loses nothing and doubles nothing."""
