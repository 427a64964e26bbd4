import sys
from pathlib import Path

import click

from waybill_dev.base.state import find_state
from waybill_dev.model import pages, spin
from waybill_dev.model.runs import ENDLESS, EXHAUSTIVE, LARGE, MUTANTS, NOT_PROMISED, Mutant, Run
from waybill_dev.model.spin import Result

PARTS = ("check", "simulate", "mutants")


@click.command(short_help="Checks the model of an event's way.")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS), metavar="[PART]...")
@click.option("--fast", is_flag=True, help="Only what `./dev check` runs: small bounds, no pages, less than a minute.")
@click.option("--seeds", default=4, show_default=True, help="Random searches of larger bounds.")
@click.option("--seconds", default=30, show_default=True, help="Of each random search.")
@click.option(
    "--pages",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where counter-examples are written. Default: docs/model/counterexamples.",
)
def model(parts: tuple[str, ...], seeds: int, seconds: int, folder: Path | None, *, fast: bool) -> None:
    r"""Checks the model of an event's way, docs/model/events.pml, with Spin.

    \b
    check     explores all states of small bounds: no promise is broken, and every run ends
    simulate  explores a part of larger bounds, at random
    mutants   plants faults, each of which has to be found, and writes the counter-examples as pages

    Without PART all of them. Exit code 1 if a promise is broken, or a planted fault is not found.
    """
    parts = parts or (("check", "mutants") if fast else PARTS)
    checker = spin.get_spin()
    file = find_state().checkout / "docs/model/events.pml"
    passed: list[bool] = []
    if "check" in parts:
        runs = [run for run in EXHAUSTIVE if run.is_fast or not fast]
        passed += [_holds(run.name, checker.run(file, run.settings), run) for run in runs]
        passed.append(_holds(ENDLESS.name, checker.run(file, ENDLESS.settings, spin.CYCLES), ENDLESS))
    if "simulate" in parts:
        for seed in range(1, seeds + 1):
            result = checker.run(file, LARGE.settings, spin.AT_RANDOM, seed=seed, within=seconds)
            passed.append(_holds(f"{LARGE.name}, seed {seed}", result, LARGE))
    if "mutants" in parts:
        target = None if fast else folder or file.parent / "counterexamples"
        passed += [_is_found(checker, file, mutant, target) for mutant in (*MUTANTS, *NOT_PROMISED)]
    sys.exit(0 if all(passed) else 1)


def _holds(name: str, result: Result, run: Run) -> bool:
    bounds = " ".join(f"{key.lower()}={value}" for key, value in run.settings.items())
    _show("ok" if result.broken is None else "FAIL", name, result, bounds)
    if result.broken is not None:
        print("\n".join([*(f"       {step}" for step in result.steps), f"     broken: {result.broken}"]))
    return result.broken is None


def _is_found(checker: spin.Spin, file: Path, mutant: Mutant, folder: Path | None) -> bool:
    result = checker.run(file, {**mutant.settings, "WORLD": mutant.world}, spin.SHORTEST)
    found = result.broken is not None and mutant.breaks in result.broken
    _show("ok" if found else "FAIL", mutant.title, result, f"refuted: {result.broken}" if found else str(result.broken))
    if found and folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        pages.file_of(mutant, folder).write_text(pages.page(mutant, result))
    return found


def _show(mark: str, name: str, result: Result, rest: str) -> None:
    print(f"{mark:<4} {name:<40} {result.states:>10,} states {result.seconds:6.1f} s  {rest}", flush=True)
