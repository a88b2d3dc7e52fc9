"""A chain: every member of a family is grown from the one before it, which teaches it."""
