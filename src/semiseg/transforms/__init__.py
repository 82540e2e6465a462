"""Random changes as values: drawn once, then called on anything that lives on the batch."""
