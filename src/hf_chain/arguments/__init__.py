"""Training arguments, as every trainer here takes them: how they are written, what they may be, what they come to."""
