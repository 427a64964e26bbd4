import click
from rich.table import Table

from waybill_dev.base.state import find_state
from waybill_dev.checks.import_graph import shapes
from waybill_dev.commands.trace import console


@click.command()
def graph() -> None:
    """Prints the import graph of each package in figures.

    The columns are: folders, and modules at the top; imports between them ("arrows"); imports against the layers of
    pyproject.toml; folders in a cycle; files and their lines.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("package")
    for heading in ("folders", "arrows", "upward", "in cycles", "files", "lines", "median", "longest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("longest file")
    for shape in shapes(find_state().checkout):
        name, length = shape.longest
        figures = (shape.folders, shape.arrows, shape.upward, shape.in_cycles, shape.files, shape.lines)
        table.add_row(shape.package, *map(str, figures), f"{shape.median:.0f}", str(length), name)
    console().print(table)
