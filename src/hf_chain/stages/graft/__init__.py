"""The stages of a graft: target, surrogate, encoder training, graft, fine-tuning."""
