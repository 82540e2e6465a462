"""The loop, and what it needs before, beside and after a step."""
