"""Model cards of what a graft is made of and comes to."""
