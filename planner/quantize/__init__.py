"""Applying a plan: Q/DQ, float16 and casts put into the graph. Knows nothing of EPs."""

from planner import make_callable

make_callable(__name__)
