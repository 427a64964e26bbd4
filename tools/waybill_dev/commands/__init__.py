"""The commands of `./dev`, one module for each or for a few that belong together."""
