"""Says where the modules of `hf_chain.stages` are now."""

raise ImportError(
    "hf_chain.stages has parted: import Recipe and load_recipe from hf_chain.methods.chain.recipe, run from "
    "hf_chain.methods.chain.runner, read_family and Ledger from hf_chain.runs.ledger; CHANGELOG.md has the rest"
)
