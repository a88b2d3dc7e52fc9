"""hf_chain: train something small first and hand its knowledge on."""
