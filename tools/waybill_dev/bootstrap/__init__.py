"""Creates .venv on a machine that has only Python. Uses the standard library alone."""
