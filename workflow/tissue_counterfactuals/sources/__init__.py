"""Readers: one file per raw layout, each ending in a checked slide."""
