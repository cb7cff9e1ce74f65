"""The planner: what a run or a study takes. The arithmetic is in model.py and plan.py, its words in description.py."""
