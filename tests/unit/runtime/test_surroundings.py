"""What the launcher, torch and NCCL are told by variables: honoured and recorded, overruled, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from harness import assert_bad_input, job, prepare_tiny_data, run_command, runtime_config, write_preset

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.errors import ConfigError
from pipeline.runtime.backend import Backend, deepspeed_settings
from pipeline.runtime.launch import launched_world_size, restart_count
from pipeline.runtime.surroundings import check_surroundings, launcher_file, overruled, recorded_variables

REFUSED = {
    "ACCELERATE_USE_FSDP": ("true", "asks for FSDP"),
    "ACCELERATE_USE_MEGATRON_LM": ("true", "asks for Megatron-LM"),
    "ACCELERATE_USE_PARALLELISM_CONFIG": ("true", "tensor or context parallelism"),
    "ACCELERATE_DEEPSPEED_MOE_LAYER_CLS_NAMES": ("Block", "mixture of experts"),
    "ACCELERATE_TORCH_DEVICE": ("cuda:0", "unset it, use CUDA_VISIBLE_DEVICES"),
    "NVIDIA_TF32_OVERRIDE": ("1", "runtime.precision='float32': unset it"),
    "CUBLAS_WORKSPACE_CONFIG": (":0:0", "runtime.deterministic=true: unset it"),
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": ("0", "past runtime.timeout_s=600: unset it"),
    "TORCH_COMPILE_DISABLE": ("1", "against runtime.compile=true: unset it"),
    "TORCHDYNAMO_DISABLE": ("1", "against runtime.compile=true: unset it"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_variable_that_contradicts_the_record_is_refused_with_the_line_to_change(name: str) -> None:
    value, text = REFUSED[name]
    runtime = runtime_config(compile=True, deterministic=True)
    with pytest.raises(ConfigError, match=text) as caught:
        check_surroundings(runtime, {name: value})
    assert f"{name}={value}" in str(caught.value)
    check_surroundings(runtime, {name: ":16:8" if name == "CUBLAS_WORKSPACE_CONFIG" else ""})


def test_variables_when_several_contradict_are_listed_together() -> None:
    with pytest.raises(ConfigError) as caught:
        check_surroundings(
            runtime_config(precision="float32"), {"NVIDIA_TF32_OVERRIDE": "1", "ACCELERATE_USE_FSDP": "True"}
        )
    assert len(str(caught.value).splitlines()) == 3


def test_variables_that_do_not_contradict_this_run_are_taken() -> None:
    check_surroundings(
        runtime_config(precision="bf16", compile=False, deterministic=False),
        {
            "NVIDIA_TF32_OVERRIDE": "1",
            "TORCH_COMPILE_DISABLE": "1",
            "CUBLAS_WORKSPACE_CONFIG": ":0:0",
            "NCCL_DEBUG": "INFO",
            "NCCL_P2P_DISABLE": "1",
        },
    )


def test_deepspeed_on_what_accelerate_calls_a_cpu_is_refused() -> None:
    variables = {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_DEEPSPEED": "true"}
    with pytest.raises(ConfigError, match="set `use_cpu: false`"):
        check_surroundings(runtime_config(), variables)


def test_launcher_settings_that_differ_from_the_preset_are_named_as_overruled(tmp_path: Path) -> None:
    home = tmp_path / "accelerate" / "default_config.yaml"
    home.parent.mkdir()
    home.write_text("mixed_precision: bf16\n")
    notes = overruled(
        runtime_config(),
        0.0,
        {
            "HF_HOME": str(tmp_path),
            "ACCELERATE_MIXED_PRECISION": "bf16",
            "ACCELERATE_DYNAMO_BACKEND": "INDUCTOR",
            "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
            "ACCELERATE_GRADIENT_CLIPPING": "1.0",
            "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1",
        },
    )
    assert len(notes) == 5
    assert all(str(home) in note for note in notes[:4])
    assert "mixed_precision=bf16" in notes[0]
    assert "runtime.precision='float32' decides" in notes[0]
    same = {"MIXED_PRECISION": "no", "DYNAMO_BACKEND": "NO", "GRADIENT_CLIPPING": "1.0"}
    assert overruled(runtime_config(), 1.0, {f"ACCELERATE_{name}": value for name, value in same.items()}) == []
    assert launcher_file({"HF_HOME": str(tmp_path / "none")}) == "the file of its --config_file"


def test_record_holds_what_steers_launcher_torch_and_nccl_and_nothing_else() -> None:
    steering = {"ACCELERATE_MIXED_PRECISION": "no", "NCCL_ALGO": "Ring", "OMP_NUM_THREADS": "1", "TORCH_LOGS": "+all"}
    assert recorded_variables(steering | {"AWS_SECRET_ACCESS_KEY": "x", "HOME": "/root"}) == steering


def test_zero_stage_and_offload_when_accelerate_writes_no_json_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", "None")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE", "cpu")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "none")
    assert deepspeed_settings(2, 0.0)["zero_optimization"] == {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE", "nvme")
    with pytest.raises(ConfigError, match="offload_param_device=nvme needs offload_param_nvme_path"):
        deepspeed_settings(2, 0.0)
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "two")
    with pytest.raises(ConfigError, match="ACCELERATE_DEEPSPEED_ZERO_STAGE='two' in the environment is not a number"):
        deepspeed_settings(2, 0.0)


@pytest.mark.parametrize("text", ["all", "0", "-2", "²"])
def test_world_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(ConfigError, match=f"WORLD_SIZE='{text}' in the environment is not a number from 1 on"):
        launched_world_size()


def test_restart_count_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "once")
    with pytest.raises(ConfigError, match="TORCHELASTIC_RESTART_COUNT='once' in the environment is not a number"):
        restart_count()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surroundings")
    write_preset(prepare_tiny_data(folder), folder / "preset.json")
    return folder


LAUNCHERS_BF16 = """compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
machine_rank: 0
mixed_precision: bf16
dynamo_config:
  dynamo_backend: INDUCTOR
num_machines: 1
num_processes: 1
use_cpu: true
"""
PLAIN_DEEPSPEED = """compute_environment: LOCAL_MACHINE
deepspeed_config:
  gradient_accumulation_steps: 2
  gradient_clipping: 1.0
  offload_optimizer_device: none
  offload_param_device: none
  zero3_init_flag: false
  zero_stage: 2
distributed_type: DEEPSPEED
machine_rank: 0
mixed_precision: bf16
num_machines: 1
num_processes: 1
use_cpu: false
"""
SHORT = ("--semantics.source", "online", "--schedule.total-images", "8")


@pytest.mark.slow
def test_run_under_a_home_configuration_in_bf16_writes_the_numbers_of_the_preset(data: Path) -> None:
    home = data / "hf" / "accelerate" / "default_config.yaml"
    home.parent.mkdir(parents=True)
    home.write_text(LAUNCHERS_BF16)
    train = [job("train_sed.py"), "preset.json", *SHORT, "--run-dir"]
    launched = run_command(["accelerate", "launch", *train, "a"], data, HF_HOME=str(data / "hf"))
    plain = run_command(["python", *train, "b"], data)
    assert (launched.returncode, plain.returncode) == (0, 0), launched.stderr + plain.stderr
    assert f"mixed_precision=bf16 (from its flags or {home}) is overruled" in launched.stderr
    assert "dynamo_backend=inductor" in launched.stderr
    assert (data / "a" / "metrics.jsonl").read_bytes() == (data / "b" / "metrics.jsonl").read_bytes()
    record = json.loads((data / "a" / "config.json").read_text())["launch"]
    assert record["variables"]["ACCELERATE_MIXED_PRECISION"] == "bf16"
    assert len(record["overruled"]) == 2
    # A record, no setting: the folder is still a preset.
    assert RunFolder(data / "a").read_config().train.runtime == RunFolder(data / "b").read_config().train.runtime
    again = run_command(["python", job("train_sed.py"), "a"], data)
    assert "nothing to do" in again.stderr


@pytest.mark.slow
def test_run_under_the_deepspeed_fields_that_accelerate_config_writes_trains_in_their_stage(data: Path) -> None:
    (data / "ds.yaml").write_text(PLAIN_DEEPSPEED)
    train = [job("train_sed.py"), "preset.json", *SHORT, "--run-dir", "ds"]
    done = run_command(["accelerate", "launch", "--config_file", "ds.yaml", *train], data)
    assert done.returncode == 0, done.stderr
    for field in ("mixed_precision=bf16", "gradient_accumulation_steps=2", "gradient_clipping=1.0"):
        assert f"the launcher's {field}" in done.stderr
    assert json.loads((data / "ds" / "config.json").read_text())["launch"]["deepspeed"]["stage"] == 2


def test_flag_of_accelerate_that_is_no_boolean_is_refused_in_words(data: Path) -> None:
    train = ["python", job("train_sed.py"), "preset.json", "--run-dir", "odd"]
    assert_bad_input(run_command(train, data, ACCELERATE_DEBUG_MODE="maybe"), "accelerate cannot start", "maybe")


def test_network_when_the_launcher_asks_for_bf16_computes_in_the_presets_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    backend = Backend(runtime_config(), batch_size=1)
    network = torch.nn.Conv2d(3, 4, 3)
    output = backend.wrap(network, torch.optim.Adam(network.parameters(), fused=True))(torch.rand(1, 3, 8, 8))
    assert output.dtype == torch.float32
    assert len(backend.notes) == 2
