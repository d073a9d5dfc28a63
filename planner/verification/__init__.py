"""Is the candidate placed on its target by the EP itself, faithful to the float32 model, and where do the two part?"""
