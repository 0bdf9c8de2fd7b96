"""What the backward part of a function reads of the forward one: saved, or computed again. Start at `planner.py`."""
