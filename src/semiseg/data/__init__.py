"""Scans on disk: found, checked, split, planned, brought to the network's space, cut into batches."""
