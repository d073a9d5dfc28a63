"""Asking an EP itself what it accepts: one-operator models, their outcomes, and the evidence files that hold them."""
