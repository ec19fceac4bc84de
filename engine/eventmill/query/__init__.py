"""The query service: trends and guarded SQL over both stores."""
