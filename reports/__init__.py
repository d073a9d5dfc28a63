"""Compatibility reports of the example models, and what makes them: `python -m reports.generate`."""
