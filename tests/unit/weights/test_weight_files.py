"""The hash that names weights, and what comes off a wrapped state dict."""

from __future__ import annotations

import torch

from pipeline.weights.files import hash_weights, read_metadata, read_weights, strip_wrappers, write_weights

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


def test_hash_is_pinned_so_that_caches_outlive_releases():
    wanted = "8095dc24d50c3b4a64f728ab36f52822ac8d982f113cf6c98d2a892c73a6a390"
    assert hash_weights(STATE) == wanted
    assert hash_weights(dict(reversed(STATE.items()))) == wanted


def test_hash_tells_names_shapes_dtypes_and_values_apart():
    others = [
        {"a": STATE["a"], "c": STATE["b"]},
        {"a": STATE["a"].reshape(3, 2), "b": STATE["b"]},
        {"a": STATE["a"].half(), "b": STATE["b"]},
        {"a": STATE["a"] + 1, "b": STATE["b"]},
        {"a": STATE["a"]},
    ]
    assert len({hash_weights(state) for state in [STATE, *others]}) == 6


def test_hash_sees_values_not_strides():
    assert hash_weights({"a": STATE["a"].T.contiguous().T}) == hash_weights({"a": STATE["a"]})


def test_equal_weights_are_equal_files_whenever_they_are_written(tmp_path):
    metadata = {f"note{number}": "x" * number for number in range(9)}
    for name in ("one", "two"):
        write_weights(tmp_path / name, STATE, metadata)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_metadata(tmp_path / "one") == metadata | {"modelspec.sai_model_spec": "1.0.1"}
    assert hash_weights(read_weights(tmp_path / "one")) == hash_weights(STATE)


def test_prefix_that_only_some_keys_have_stays():
    mixed = {"module.a": STATE["a"], "b": STATE["b"]}
    assert strip_wrappers(mixed).keys() == mixed.keys()


def test_entries_that_are_no_tensors_are_skipped():
    assert strip_wrappers({"params": {"a": STATE["a"], "epoch": 3}}).keys() == {"a"}
