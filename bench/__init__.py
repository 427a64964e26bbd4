"""Benchmarks: ratios to ceilings measured in the same run, in interleaved rounds. `./dev bench` runs them."""
