"""What matching asks of a network: that its simulated trials have the averages and the variability of recorded ones."""
