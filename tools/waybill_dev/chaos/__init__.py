"""Orders go in while processes are killed at random; then everything is counted."""
