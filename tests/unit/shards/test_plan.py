import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shards.config import ShardConfig
from shards.errors import InputError, ShardError
from shards.write.generations import extend, read_generations
from shards.write.plan import num_sub_images
from shards.write.subimages import grid, starts


@pytest.mark.parametrize(("height_px", "width_px"), [(32, 32), (33, 35), (48, 50), (64, 99), (101, 67)])
def test_grid_when_a_photo_has_any_size_covers_every_pixel_of_the_cut(height_px: int, width_px: int) -> None:
    positions = grid(height_px, width_px, scale=4, sub_image_px=32, stride_px=16)
    covered = {
        (row, column)
        for top_px, left_px in positions
        for row in range(top_px, top_px + 32)
        for column in range(left_px, left_px + 32)
    }
    assert covered == {(row, column) for row in range(height_px // 4 * 4) for column in range(width_px // 4 * 4)}
    assert len(set(positions)) == len(positions)
    assert all(top_px % 4 == 0 and left_px % 4 == 0 for top_px, left_px in positions)


def test_starts_when_the_stride_does_not_fit_adds_the_last() -> None:
    assert starts(480, 480, 240) == [0]
    assert starts(1024, 480, 240) == [0, 240, 480, 544]
    assert starts(960, 480, 240) == [0, 240, 480]


def test_plan_when_made_holds_every_sub_image_once_in_even_shards(
    make_config: Callable[..., ShardConfig], plan_of: Callable
) -> None:
    config = make_config()
    plan = plan_of(config)
    numbers: dict[str, list[int]] = {}
    for shard in plan.shards:
        for piece in shard.pieces:
            numbers.setdefault(piece.photo.name, []).extend(range(piece.first, piece.first + piece.count))
    assert numbers.keys() == {photo.name for photo in plan.photos}
    for photo in plan.photos:
        assert sorted(numbers[photo.name]) == list(range(num_sub_images(photo, plan.settings)))
    counts = [shard.num_samples for shard in plan.shards]
    assert len(counts) > 2
    assert max(counts) - min(counts) <= 1
    assert all(shard.predicted_bytes <= config.shard_size_mib * 2**20 for shard in plan.shards)


def test_plan_when_only_paths_differ_has_the_same_fingerprint(
    make_config: Callable[..., ShardConfig], plan_of: Callable, photos: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "photos"
    shutil.copytree(photos, elsewhere)
    first, second = plan_of(make_config()), plan_of(make_config(source=(elsewhere,), output=tmp_path / "o"))
    assert first == second
    assert first.fingerprint == second.fingerprint


def test_plan_when_the_seed_differs_mixes_photos_otherwise(
    make_config: Callable[..., ShardConfig], plan_of: Callable
) -> None:
    orders = {
        tuple(piece.photo.name for shard in plan_of(make_config(seed=seed)).shards for piece in shard.pieces)
        for seed in range(8)
    }
    assert len(orders) > 1


def test_changed_plan_when_the_output_exists_is_refused_with_the_difference(
    make_config: Callable[..., ShardConfig], plan_of: Callable, write_here: Callable, photos: Path, tmp_path: Path
) -> None:
    source = tmp_path / "photos"
    shutil.copytree(photos, source)
    config = make_config(source=(source,))
    folder = write_here(config)
    extend(folder, plan_of(config))
    changed = dataclasses.replace(config, variants=4, stride_px=32)
    with pytest.raises(ShardError, match=r"stride_px: 16 there, 32 now\n  variants: 3 there, 4 now"):
        extend(folder, plan_of(changed))
    (source / "photo.0.png").rename(source / "renamed.png")
    with pytest.raises(ShardError, match=r"missing: photos/photo.0.png\n  1 input\(s\) added: photos/renamed.png"):
        extend(folder, plan_of(config))
    (folder / "plan.json").unlink()
    with pytest.raises(ShardError, match=r"plan.json is gone, and images-000000.json is of another plan"):
        extend(folder, plan_of(config))
    (source / "renamed.png").rename(source / "photo.0.png")
    extend(folder, plan_of(config))


def test_output_when_it_holds_something_else_is_refused(tmp_path: Path) -> None:
    assert read_generations(tmp_path) == ()
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"such as thesis\.txt"):
        read_generations(tmp_path)


def test_config_when_several_values_are_bad_lists_them_all(make_config: Callable[..., ShardConfig]) -> None:
    with pytest.raises(InputError) as caught:
        make_config(sub_image_px=33, stride_px=64, variants=0, max_reject_fraction=2.0)
    text = str(caught.value)
    assert "sub_image_px=33 is not a multiple of scale=4; nearest is 32" in text
    assert all(name in text for name in ("stride_px=64 is above", "variants=0", "max_reject_fraction=2.0"))
