"""Applying a plan: Q/DQ, float16 and casts put into the graph. Knows nothing of EPs."""
