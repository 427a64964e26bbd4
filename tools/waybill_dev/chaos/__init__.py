"""Places orders while processes are killed at random, then counts what arrived."""
