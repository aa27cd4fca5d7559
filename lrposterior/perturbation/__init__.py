"""What candidate stimulations would do, how certain that is, and how much it would teach."""
