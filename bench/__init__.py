"""Benchmarks: ratios to ceilings that are measured in the same run, in interleaved rounds. `./dev bench` runs them."""
