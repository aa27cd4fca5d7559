"""Which stimulations to apply next: sets of patterns that are expected to teach the most."""
