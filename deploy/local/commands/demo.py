import click


@click.command()
def demo() -> None:
    """One order from sign-up to e-mail, shown hop by hop."""
    raise NotImplementedError
