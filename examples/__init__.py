"""Real trained models with real-like inputs, to try planner on: nothing here is part of the installed package."""
