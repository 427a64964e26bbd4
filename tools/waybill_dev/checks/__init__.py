"""The checks of ./dev check."""
