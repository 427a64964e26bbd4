import click


@click.command()
def check() -> None:
    """Format, lint, types, layer rules, contract drift, migrations drift."""
    raise NotImplementedError
