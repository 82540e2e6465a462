"""A folder of results -> one HTML file that opens anywhere, without a network."""
