"""Checks that `contracts/` keeps what a release promised: whatever others read or send must still work."""
