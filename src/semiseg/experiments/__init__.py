"""What decides a run, and doing it from a folder of scans to a model."""
