"""Hostile and broken files, made at random."""
