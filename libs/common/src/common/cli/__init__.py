"""The command line of a service: its roles, and the operators' commands."""
