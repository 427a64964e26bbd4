"""Whether `contracts/` broke what a release promised: what others read or send must go on working."""
