"""From a large language model to its surrogate and back: trajectory, cut, surrogate, translator, graft."""
