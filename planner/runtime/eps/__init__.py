"""One file an EP: how it is found and started. Read by the worker in the EP's own environment: the standard library alone."""
