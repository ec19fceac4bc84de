"""Users' country, segment and tier: from a file, or from Redis through a cache."""
