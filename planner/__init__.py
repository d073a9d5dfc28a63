"""planner: which numeric precision is legal on an execution provider, which is best, and is it proven?"""

__version__ = "0.1.0"
