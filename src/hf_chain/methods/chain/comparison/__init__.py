"""What chains cost against twins at equal quality, from the ledgers of runs alone."""
