"""A model is a folder of weights and a plan; with it, whole scans become probabilities."""
