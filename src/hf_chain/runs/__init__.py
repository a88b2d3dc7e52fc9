"""What every run has, whichever method it follows: recipe file, ledger, lock, environment, training, trackers."""
