"""Formats of corpora that Arrow reads."""
