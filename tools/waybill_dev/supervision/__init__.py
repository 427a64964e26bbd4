"""The supervisor: starts, watches, scales and stops every process of a stack."""
