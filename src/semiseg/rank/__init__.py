"""How good a segmentation may be, without a label: scores of scans, a ranking, and what it is worth."""
