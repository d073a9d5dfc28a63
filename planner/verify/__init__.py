"""Is the candidate placed on its target by the EP itself, faithful to the float32 model, and where do the two part?"""

from planner import make_callable

make_callable(__name__)
