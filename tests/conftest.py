"""Its place puts ``tests/`` on the import path, for helpers that several test files share."""
