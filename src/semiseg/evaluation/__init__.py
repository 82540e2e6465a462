"""Everything against labels."""
