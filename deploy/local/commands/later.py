"""Commands that are promised but not there yet: they say so, and fail."""

import sys

import click


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", required=False)
def bench(name: str | None) -> None:
    """Benchmarks, as ratios against ceilings measured in the same run (not there yet)."""
    print(f"./dev bench{f' {name}' if name else ''}: no benchmark has been written yet", file=sys.stderr)
    sys.exit(2)
