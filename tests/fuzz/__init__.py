"""Readers of files that may come from anybody, and damaged files for them: `python -m tests.fuzz`."""
