"""Validates every file in `contracts/` with the validators of its standard."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, FormatChecker
from openapi_spec_validator import OpenAPIV31SpecValidator

from waybill_dev.base.declaration import SERVICES
from waybill_dev.base.state import find_state
from waybill_dev.checks.contracts import drift

CHECKOUT = find_state().checkout
CONTRACTS = CHECKOUT / "contracts"
SCHEMAS = sorted(CONTRACTS.glob("events/*.schema.json"))
APIS = sorted(CONTRACTS.glob("*/openapi.json"))
DESCRIPTIONS = sorted(CONTRACTS.glob("*/asyncapi.yaml"))
NPM = shutil.which("npm") if shutil.which("node") else None


def test_every_file_is_validated_here() -> None:
    files = {file for file in CONTRACTS.rglob("*") if file.is_file()}
    assert files == {*SCHEMAS, *APIS, *DESCRIPTIONS}
    assert {file.parent.name for file in APIS} == set(SERVICES)
    producers = {name for name, service in SERVICES.items() if "relay" in service.roles}
    assert {file.parent.name for file in DESCRIPTIONS} == producers


@pytest.mark.parametrize("file", SCHEMAS, ids=lambda file: file.name)
def test_an_events_schema_is_json_schema_2020_12_and_its_example_fits(file: Path) -> None:
    schema: dict[str, Any] = json.loads(file.read_text())
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    [example] = schema["examples"]
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(example)


@pytest.mark.parametrize("file", APIS, ids=lambda file: file.parent.name)
def test_an_apis_description_is_openapi_3_1(file: Path) -> None:
    document: dict[str, Any] = json.loads(file.read_text())
    assert document["openapi"].startswith("3.1.")
    OpenAPIV31SpecValidator(document).validate()


@pytest.mark.parametrize("file", DESCRIPTIONS, ids=lambda file: file.parent.name)
def test_a_description_of_events_names_schemas_that_are_there(file: Path) -> None:
    document: dict[str, Any] = yaml.safe_load(file.read_text())
    named = [message["payload"]["schema"]["$ref"] for message in document["components"]["messages"].values()]
    own = [schema for schema in SCHEMAS if schema.name.startswith(f"{file.parent.name}.")]
    assert sorted((file.parent / name).resolve() for name in named) == own


@pytest.mark.slow
@pytest.mark.skipif(NPM is None, reason="node and npm are not installed")
def test_a_description_of_events_is_what_asyncapis_own_parser_accepts(tmp_path: Path) -> None:
    validator = installed(CHECKOUT / ".dev" / "test" / "asyncapi")

    def validate(*files: Path) -> subprocess.CompletedProcess[str]:
        words = ["node", *map(str, (validator / "validate.js", *files))]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    accepted = validate(*DESCRIPTIONS)
    assert (accepted.returncode, accepted.stdout) == (0, ""), accepted.stdout + accepted.stderr
    wrong = tmp_path / "asyncapi.yaml"
    wrong.write_text(DESCRIPTIONS[0].read_text().replace("action: send", "action: shout"))
    assert validate(wrong).returncode == 1


def installed(folder: Path) -> Path:
    """The folder with the validator and its npm packages."""
    source = Path(__file__).parent / "asyncapi"
    lock = (source / "package-lock.json").read_bytes()
    done = folder / "node_modules" / "waybill-lock.json"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if not done.exists() or done.read_bytes() != lock:
        subprocess.run(
            [str(NPM), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        done.write_bytes(lock)
    return folder


def test_drift_is_reported_for_each_file(tmp_path: Path) -> None:
    (tmp_path / "events").mkdir()
    (tmp_path / "events" / "old.json").write_text("{}")
    (tmp_path / "same.json").write_text("{}")
    (tmp_path / "other.json").write_text("{}")
    assert drift(tmp_path, {"same.json": "{}", "other.json": "[]", "new.json": "{}"}) == [
        "contracts/other.json is not what the code says",
        "contracts/new.json is missing",
        "contracts/events/old.json belongs to nothing in the code",
    ]
