"""What a family would reach: a law of loss against size and samples, and the schedule that it proposes."""
