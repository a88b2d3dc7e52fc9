"""Lets `python -m hf_chain` be the command line."""

from hf_chain.cli import main

main()
