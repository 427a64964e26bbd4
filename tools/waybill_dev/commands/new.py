import subprocess
import sys
from pathlib import Path

import click

from waybill_dev.base.declaration import FILE, SERVICES, declared
from waybill_dev.base.state import find_state
from waybill_dev.errors import LocalError
from waybill_dev.services import registration, template

# A new service needs what `common` needs, as orders does.
SAME_LOCK = "orders"


@click.command()
@click.argument("name")
def new(name: str) -> None:
    """Adds a new service, which works at once.

    Creates its code, tests, database, events, image and deployment. See docs/new-service.md.
    """
    checkout = find_state().checkout
    template.check_name(name, SERVICES)
    if (checkout / "services" / name / "pyproject.toml").exists():
        raise LocalError(f"services/{name} is there already, though services.toml does not declare it")
    source = checkout / "tools" / "template"
    blocks = template.blocks(source, name)
    declaration = FILE.read_text().rstrip("\n") + "\n" + blocks["services.toml"]
    added = template.files(source, name)
    lock = (checkout / "services" / SAME_LOCK / "requirements.lock").read_text()
    added[f"services/{name}/requirements.lock"] = lock.replace(f"waybill-{SAME_LOCK}", f"waybill-{name}")
    changed = registration.registered(checkout, SERVICES, declared(declaration)[name], blocks)
    changed["services.toml"] = declaration
    for file, text in {**added, **changed}.items():
        path = checkout / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _tidy(checkout, f"services/{name}")
    # In processes of their own: this one has read services.toml as it was, and lacks the new package.
    _run(checkout, "-m", "waybill_dev.bootstrap.environment", str(checkout))
    before = set((checkout / "contracts").rglob("*"))
    _run(checkout, "-m", "waybill_dev.checks.contracts")
    contracts = sorted(path for path in (checkout / "contracts").rglob("*") if path.is_file() and path not in before)
    added |= {str(path.relative_to(checkout)): "" for path in contracts}
    _report(name, list(added), list(changed))


def _tidy(checkout: Path, folder: str) -> None:
    """The order of imports depends on the name."""
    _run(checkout, "-m", "ruff", "check", "--quiet", "--select", "I", "--fix", folder)
    _run(checkout, "-m", "ruff", "format", "--quiet", folder)


def _run(checkout: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, *words], cwd=checkout, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise LocalError(f"{' '.join(words)} failed: {(done.stdout + done.stderr).strip()}")


def _report(name: str, added: list[str], changed: list[str]) -> None:
    folders: dict[str, int] = {}
    for file in added:
        top = "/".join(file.split("/")[:2])
        folders[top] = folders.get(top, 0) + 1
    print(f"added {len(added)} files:")
    print("\n".join(f"  {folder:<24} {count}" for folder, count in folders.items()))
    print(f"listed {name} in {len(changed)} files:")
    print("\n".join(f"  {file}" for file in changed))
    print(f"""
Next:
  ./dev check                     formats, types, layers, manifests, and what {name} lacks
  ./dev test services/{name}
  ./dev up --detach               boots it with all others (./dev down first, if they run)
  docs/new-service.md             how to make it yours: the table, the event, the route""")
