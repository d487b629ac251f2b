"""The command of infra/kubernetes/train.yaml, as the pods of two nodes would run it, on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from harness import ROOT, job_environment, prepare_tiny_data, tiny_preset, write_preset
from servers import free_port


def pod_of(file: str) -> dict[str, Any]:
    (job,) = yaml.safe_load((ROOT / "infra" / "kubernetes" / file).read_text())["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.slow
@pytest.mark.distributed
def test_two_pods_of_the_jobset_train_one_run_to_its_end(tmp_path: Path) -> None:
    prepare_tiny_data(tmp_path)
    preset = tiny_preset(tmp_path, **{"schedule.total_images": 8, "schedule.pixel_only_images": 8})
    write_preset(preset, tmp_path / "preset.json")
    container = pod_of("train.yaml")
    written = {variable["name"]: variable["value"] for variable in container["env"]}
    mine = {
        "PRESET": str(tmp_path / "preset.json"),
        "RUN_DIR": str(tmp_path / "run"),
        "FLAGS": "--report.keep-checkpoints 1",
        "NUM_NODES": "2",
        "PROCESSES_PER_NODE": "1",
        "MAIN_HOST": "127.0.0.1",
        "MAIN_PORT": str(free_port()),
        "ACCELERATE_CONFIG": "infra/accelerate/cpu_2.yaml",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
    }
    assert set(mine) <= set(written), "the file has lost a variable that this test sets"
    pods = [
        subprocess.Popen(
            [*container["command"], *container["args"]],
            cwd=ROOT,
            env=job_environment(tmp_path) | written | mine | {"JOB_COMPLETION_INDEX": str(index)},
            stderr=(tmp_path / f"pod{index}.log").open("wb"),
        )
        for index in range(2)
    ]
    codes = [pod.wait(240) for pod in pods]
    assert codes == [0, 0], (tmp_path / "pod0.log").read_text()[-3000:]
    assert "2 process(es)" in (tmp_path / "pod0.log").read_text()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
