"""Experiment files and the runs that they become: shipped ones, what is refused, and arms of equal size."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from tiny_experiment import DOCUMENT

from jobs.command_line import PRESETS
from jobs.compare import EXPERIMENTS
from pipeline.config.plain import structure, to_plain
from pipeline.errors import ConfigError
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.plan import Choices, Plan, plan
from pipeline.run.cost import discriminator_parameters

SHIPPED = EXPERIMENTS.names()


def tiny(**changes: object) -> Experiment:
    return structure(DOCUMENT | changes, Experiment, "tiny")


def planned(experiment: Experiment, budget: str = "cpu", folder: str = "out", **choices: object) -> Plan:
    return plan(experiment, dataclasses.replace(Choices(Path(folder), budget), **choices), PRESETS)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_experiment_plans_every_budget(name: str) -> None:
    experiment = EXPERIMENTS.load(name, Experiment)
    for budget in experiment.budgets:
        runs = planned(experiment, budget).runs
        assert len(runs) == len(experiment.arms) * len(experiment.seeds)
        assert len({run.preset.train.run_dir for run in runs}) == len(runs)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name != "demo"])
def test_shipped_experiment_has_every_control(name: str) -> None:
    experiment = EXPERIMENTS.load(name, Experiment)
    arms = {run.arm: run.preset.train for run in planned(experiment).runs}
    assert arms["none"].losses.adversarial_weight < 1e-9
    assert not arms["plain"].discriminator.semantic
    larger, sed = (discriminator_parameters(arms[arm]) for arm in ("plain_wide", "sed"))
    assert not arms["plain_wide"].discriminator.semantic
    assert abs(larger / sed - 1) < 0.03
    assert arms["sed_residual_shuffled"].semantics.shuffled
    assert arms["sed_residual_random"].semantics.weights == "random"
    shuffled = to_plain(arms["sed_residual_shuffled"])
    shuffled["semantics"]["shuffled"] = False
    assert {**shuffled, "run_dir": ""} == {**to_plain(arms["sed_residual"]), "run_dir": ""}


def test_runs_of_a_seed_differ_in_what_the_arm_says_alone() -> None:
    plain, sed, *_ = planned(tiny()).runs
    assert (plain.name, sed.name) == ("plain/seed-1", "sed/seed-1")
    ours, theirs = (to_plain(run.preset.train) for run in (plain, sed))
    assert {key for key in ours if ours[key] != theirs[key]} == {"run_dir", "discriminator"}


def test_all_arms_begin_with_the_export_of_the_start() -> None:
    made = planned(tiny())
    assert made.start is not None
    assert made.start.preset.train.run_dir == Path("out/start")
    files = {run.preset.train.generator.initial_file for run in made.runs}
    assert files == {Path("out/start/export/generator.safetensors")}
    given = planned(tiny(), start=Path("mine.safetensors"))
    assert given.start is None
    assert {run.preset.train.generator.initial_file for run in given.runs} == {Path("mine.safetensors")}


def test_command_line_moves_data_and_seeds_of_all_runs() -> None:
    made = planned(tiny(), shards=Path("mine"), sets=(Path("Set5"),), seeds=(7,))
    for run in made.all_runs:
        assert run.preset.train.data.shards == Path("mine")
        assert run.preset.train.report.validation_sets == (Path("Set5"),)
    assert {run.seed for run in made.runs} == {7}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"baseline": "gone"}, "baseline='gone' is no arm; arms: plain, sed"),
        ({"seeds": [1, 1]}, "has one twice"),
        ({"margin": 0.0}, "margin=0.0 must be above 0"),
        ({"primary": "lpips"}, "primary='lpips' is not in metrics"),
        ({"metrics": ["psnr"]}, "psnr_y"),
        ({"arms": {"plain": {"title": "P", "as_large_as": "plain"}, "b": {"title": "b"}}}, "is no other arm"),
        ({"arms": {"plain": {"title": "P"}}}, "two arms"),
        ({"budget": {}}, "budgets"),
    ],
)
def test_faulty_experiment_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        tiny(**changes)


def test_faults_of_an_arm_name_it() -> None:
    arms = {"plain": {"title": "P"}, "b": {"title": "b", "train": {"losses": {"pixel_wait": 1.0}}}}
    with pytest.raises(ConfigError, match=r"(?s)pixel_wait.*pixel_weight.*arm b"):
        planned(tiny(arms=arms))


def test_arms_on_other_data_or_for_another_time_are_refused() -> None:
    for train, path in (
        ({"data": {"crop_px": 64, "canvas_px": 64}}, "data"),
        ({"schedule": {"total_images": 8}}, "total"),
    ):
        arms = {"plain": {"title": "P"}, "b": {"title": "b", "train": train}}
        with pytest.raises(ConfigError, match=rf"arm b has another train\.\S*{path}.* cannot be compared"):
            planned(tiny(arms=arms))


def test_unknown_budget_and_experiment_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no budget 'cpus', did you mean 'cpu'"):
        planned(tiny(), "cpus")
    with pytest.raises(ConfigError, match=r"unknown experiment 'semantic', did you mean 'semantics'"):
        EXPERIMENTS.load("semantic", Experiment)
