"""What one run leaves on disk."""
