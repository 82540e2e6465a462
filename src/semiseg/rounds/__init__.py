"""Self-training: a teacher guesses the labels of unlabelled scans, and students learn from the sure ones."""
