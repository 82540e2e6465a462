"""Comparing methods honestly: the same scans, steps and draws for all, over replicates, with their uncertainty."""
