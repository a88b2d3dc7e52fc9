"""What one command does, for the command line and for scripts."""
