"""Every file of infra/ that another program reads is one that this program accepts."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from harness import ROOT

INFRA = ROOT / "infra"
KUBERNETES = sorted((INFRA / "kubernetes").glob("*.yaml"))
KUBERNETES_VERSION = "1.34"
DOCUMENTS: dict[str, dict[str, Any]] = {
    f"{path.stem}-{document['kind']}-{document['metadata']['name']}": document
    for path in KUBERNETES
    for document in yaml.safe_load_all(path.read_text())
}
each_document = pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS.keys())
OF_OPERATORS = {"RayCluster", "RayJob", "JobSet"}


def as_kubernetes_knows_it(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a document with a schema of Kubernetes' own: all of it, or pods and jobs inside an operator's."""
    kind = document["kind"]
    if kind not in OF_OPERATORS:
        return [document]
    if kind == "JobSet":
        templates = [job["template"]["spec"] for job in document["spec"]["replicatedJobs"]]
        return [as_object("batch/v1", "Job", {"spec": spec}) for spec in templates]
    cluster = document["spec"] if kind == "RayCluster" else document["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [as_object("v1", "PodTemplate", {"template": group["template"]}) for group in groups]


def as_object(version: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "inner"}, **content}


@each_document
def test_documents_of_kubernetes_have_its_schema(document: dict[str, Any]) -> None:
    for part in as_kubernetes_knows_it(document):
        kubernetes_validate.validate(part, KUBERNETES_VERSION, strict=True)


def test_a_document_with_a_misspelt_field_is_refused() -> None:
    (pods,) = as_kubernetes_knows_it(copy.deepcopy(DOCUMENTS["train-JobSet-sed"]))
    pods["spec"]["template"]["spec"]["terminationGracePeriod"] = 300
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(pods, KUBERNETES_VERSION, strict=True)


@each_document
def test_secrets_are_named_and_never_written(document: dict[str, Any]) -> None:
    for container in containers(document):
        for variable in container.get("env", []):
            if re.search("PASSWORD|SECRET|KEY|TOKEN", variable["name"]):
                assert "secretKeyRef" in variable["valueFrom"], variable


def containers(value: Any) -> list[dict[str, Any]]:
    """Every container below a value."""
    if isinstance(value, list):
        return [found for item in value for found in containers(item)]
    if not isinstance(value, dict):
        return []
    own = value.get("containers", [])
    return [*own, *(found for key, item in value.items() if key != "containers" for found in containers(item))]


def test_ray_accepts_the_cluster_file() -> None:
    from ray.autoscaler._private.util import fillout_defaults, prepare_config, validate_config

    config = yaml.safe_load((INFRA / "ray" / "cluster.yaml").read_text())
    validate_config(fillout_defaults(prepare_config(config)))
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config({**config, "max_worker": 2})


@pytest.mark.parametrize("path", [*INFRA.rglob("*.sh"), *INFRA.rglob("*.sbatch")], ids=lambda path: path.name)
def test_scripts_are_ones_that_bash_reads(path: Path) -> None:
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_container_has_what_the_jobs_import_and_does_not_run_as_root(tmp_path: Path) -> None:
    lines = (INFRA / "container" / "sed.Dockerfile").read_text().splitlines()
    stages = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    assert all(re.search(r"python:\$\{PYTHON\}|packages|cpu", lines[number]) for number in stages)
    assert re.search(r"^ARG PYTHON=\d+\.\d+\.\d+-", "\n".join(lines), re.MULTILINE)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000"
    last = "\n".join(lines).partition("AS cpu\n")[2]
    for source, target in re.findall(r"^COPY (\w+) (\w+)$", last, re.MULTILINE):
        shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
    assert (tmp_path / "infra" / "mlflow" / "serve.sh").is_file()
    for name in ("train_sed", "shard", "cache_features"):
        command = [sys.executable, f"jobs/{name}.py", "--help"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
