"""Makes .venv on a machine that has only Python. Standard library only."""
