"""Rules from evidence: derived, pruned, and held to what was asked."""
