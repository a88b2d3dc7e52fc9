"""A graft: a surrogate is cut from a target, an encoder is trained on it and joined with the target."""
