"""Searches on several Ray nodes that only a network joins."""
