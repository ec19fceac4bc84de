"""Measurements. ``python -m bench`` runs them; each stands beside its peers, or says where the time goes."""
