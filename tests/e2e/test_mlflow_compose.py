"""The team's MLflow server as infra/mlflow has it: its own command, on PostgreSQL and an S3 store of this machine."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, job, run_command, two_step_preset, write_preset
from mlflow import MlflowClient
from servers import Server, free_port, open_database, open_object_store, running

COMPOSE = yaml.safe_load((ROOT / "infra" / "mlflow" / "compose.yaml").read_text())
SECRETS = {
    "POSTGRES_PASSWORD": "0123456789abcdef",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "fedcba9876543210",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "a long password",
}
LOGIN = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": SECRETS["MLFLOW_AUTH_ADMIN_PASSWORD"]}
VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


def as_compose_sets_it(template: str, variables: Mapping[str, str]) -> str:
    """A value with its variables filled in; KeyError where compose would refuse to start."""

    def value(match: re.Match[str]) -> str:
        name, kind, text = match.groups()
        return variables.get(name) or text if kind == "-" else variables[name]

    return VARIABLE.sub(value, template)


class TeamServer(Server):
    """The compose file's command, with the variables that it would have."""

    def __init__(self, variables: Mapping[str, str], log: Path) -> None:
        port = free_port()
        self.uri = f"http://127.0.0.1:{port}"
        service = COMPOSE["services"]["mlflow"]
        variables = {**variables, "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}"}
        environment = {name: as_compose_sets_it(text, variables) for name, text in service["environment"].items()}
        # What a container has of its own: a network, and a name for the database in it.
        environment |= {"MLFLOW_SERVER_HOST": "127.0.0.1", "MLFLOW_SERVER_PORT": str(port)}
        environment |= {
            name: variables[name] for name in ("POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "POSTGRES_DB")
        }
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
        program, script = service["command"]
        super().__init__([program, str(ROOT / script)], self._ping, log, environment=environment)

    def _ping(self) -> None:
        urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    folder = tmp_path_factory.mktemp("team")
    with open_database() as database, open_object_store(folder) as store:
        variables = {**SECRETS, **store.variables, **database.variables, "MLFLOW_ARTIFACTS_DESTINATION": store.uri}
        with running(TeamServer(variables, folder / "mlflow.txt")) as server:
            yield server


def test_secrets_have_no_default_and_only_this_machine_is_served() -> None:
    for service in COMPOSE["services"].values():
        for name, text in service["environment"].items():
            if "PASSWORD" in name or "SECRET" in name:
                assert re.fullmatch(r"\$\{" + name + r":\?[^}]*\}", text), text
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["services"]["mlflow"]["ports"])
    assert "ports" not in COMPOSE["services"]["database"]


@pytest.mark.parametrize("missing", SECRETS)
def test_server_without_a_secret_says_which_and_does_not_start(missing: str) -> None:
    variables = {**os.environ, **SECRETS, "POSTGRES_HOST": "x", "MLFLOW_ARTIFACTS_DESTINATION": "s3://x"}
    variables |= {"MLFLOW_SERVER_ALLOWED_HOSTS": "x:1"}
    del variables[missing]
    command = ["bash", "infra/mlflow/serve.sh"]
    done = subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert missing in done.stderr


def points(uri: str, run_id: str, names: list[str]) -> dict[str, Any]:
    client = MlflowClient(uri)
    return {name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)] for name in names}


@pytest.mark.slow
def test_run_tracked_on_a_laptop_is_brought_to_the_server_with_a_password_and_survives_its_restart(
    server: TeamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_preset(two_step_preset(tmp_path), tmp_path / "preset.json")
    laptop, run = f"sqlite:///{tmp_path}/mlflow.db", tmp_path / "run"
    training = [
        "python",
        job("train_sed.py"),
        str(tmp_path / "preset.json"),
        "--run-dir",
        str(run),
        "--generator.initial-weights",
        "random",
    ]
    done = run_command(training, tmp_path, MLFLOW_TRACKING_URI=laptop)
    assert done.returncode == 0, done.stderr

    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{server.uri}/api/2.0/mlflow/experiments/search?max_results=5", timeout=10)
    done = run_command(["python", job("sync.py"), str(run)], tmp_path, MLFLOW_TRACKING_URI=server.uri, **LOGIN)
    assert done.returncode == 0, done.stderr

    server.restart()
    for name, value in LOGIN.items():
        monkeypatch.setenv(name, value)
    found = {}
    for uri in (laptop, server.uri):
        client = MlflowClient(uri)
        (tracked,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
        names = sorted(name for name in tracked.data.metrics if not name.startswith(("speed", "memory", "system")))
        files = sorted(artifact.path for artifact in client.list_artifacts(tracked.info.run_id))
        found[uri] = (points(uri, tracked.info.run_id, names), tracked.data.params, tracked.info.status, files)
    assert found[laptop][:3] == found[server.uri][:3]
    assert "generator/pixel" in found[laptop][0]
    assert found[server.uri][3] == ["config.json", "generator.safetensors"]
