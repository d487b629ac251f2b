"""Ways to stream the same PNG files to training processes: this project's shards and what people would use instead.

Each side writes the samples once, and opens a loader of one process's batches over one epoch in a random order, at the
start or, with the state of an interrupted epoch, in its middle. Crops are decoded by one function for all of them.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import random
import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from _shards import SCALE
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, default_collate

from pipeline.config.data import DataConfig
from pipeline.data.samples import RankBatches, TrainingSamples, batches
from shards.degradation.crops import Crop
from shards.format.png import decode_crop
from shards.format.storage import parse_path
from shards.read.reader import ShardSet

Row = Mapping[str, Any]
"""A sample: `key`, and the contents of its files, `hr` and `lq`."""
CROP_PX = 256
SEED = 1
FILE_BYTES = 1 << 23
BUFFER = 256
"""Samples of a shuffle buffer, for those that have one."""
WINDOW_SHARDS = 8
"""Of ours from a store: as many samples as the buffer, and some."""


def peer(module: str) -> Any:
    """Import a module that this project does not install."""
    return importlib.import_module(module)


@dataclass(frozen=True)
class Place:
    """What a process reads, and its part of it.

    Attributes:
        location: Folder or s3:// URL.
        files: Names of the files in it.
        cache: Folder on this disk for copies.
        http: The same as `location` by HTTP; empty for a folder.
        rank: Of this process.
        world_size: Number of processes.
        batch: Images per step over all processes.
        workers: Loader processes of each.
    """

    location: str
    files: tuple[str, ...]
    cache: Path
    http: str = ""
    rank: int = 0
    world_size: int = 1
    batch: int = 8
    workers: int = 0

    @property
    def share(self) -> int:
        """Images per step of this process."""
        return self.batch // self.world_size


def to_crop(row: Row, sub_image_px: int) -> tuple[str, Tensor, Tensor]:
    """Decode a crop of HR and LQ at a random place, as the project's own loader does."""
    free = (sub_image_px - CROP_PX) // SCALE
    crop = Crop(random.randint(0, free) * SCALE, random.randint(0, free) * SCALE, CROP_PX, random.randrange(8))
    hr, lq = decode_crop(row["hr"], row["key"], crop), decode_crop(row["lq"], row["key"], crop.scaled(SCALE))
    return row["key"], torch.from_numpy(hr.transpose(2, 0, 1).copy()), torch.from_numpy(lq.transpose(2, 0, 1).copy())


def stack(rows: Sequence[Row], sub_image_px: int) -> list[Any]:
    """Decode and stack rows: names, HR and LQ, the tensors of a loader process in shared memory."""
    return default_collate([to_crop(row, sub_image_px) for row in rows])


class Side(ABC):
    """One way to write and read samples.

    Attributes:
        name: As the table has it.
        distribution: What has to be installed.
        module: What is then imported.
        reads_from_store: Whether it gets through an epoch from the store in minutes.

    Args:
        sub_image_px: Side of the HR images.
    """

    name: str
    distribution: str
    module: str
    reads_from_store: bool = True

    def __init__(self, sub_image_px: int) -> None:
        self._sub_image_px = sub_image_px
        self._stack = functools.partial(stack, sub_image_px=sub_image_px)

    @abstractmethod
    def write(self, shards: Path, folder: Path) -> None:
        """Write the samples of shards into a folder."""

    @abstractmethod
    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open a process's batches, from the start or from a state after so many images over all processes."""

    def state(self, loader: Any, num_seen: int) -> Any:
        """Return what is to be saved after so many images over all processes; None where there is no such thing."""
        return None

    def keys(self, batch: Any) -> list[str]:
        """Return the names of a batch's samples."""
        return list(batch[0])


def rows_of(shards: Path) -> Iterator[Row]:
    """Return the samples of shards."""
    for number in range(len(_opened(shards))):
        yield _row((shards, number))


def _row(place: tuple[Path, int]) -> Row:
    sample = _opened(place[0]).sample(place[1])
    return {"key": sample.key, "hr": sample.members["png"], "lq": sample.members["lq.png"]}


@functools.cache
def _opened(shards: Path) -> ShardSet:
    return ShardSet.open(shards)


class Ours(Side):
    """This project: random access by number; resuming is arithmetic."""

    name = "ours"
    distribution = module = "torch"

    def write(self, shards: Path, folder: Path) -> None:
        """Copy them."""
        shutil.copytree(shards, folder)

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open our loader for what is left of the epoch."""
        config = DataConfig(
            parse_path(place.location),
            CROP_PX,
            CROP_PX,
            place.batch,
            place.workers,
            window_shards=WINDOW_SHARDS if place.http else 0,
            cache_dir=place.cache,
        )
        samples = TrainingSamples(config, SEED)
        left = (len(samples.members[0].images) - num_seen) // place.batch
        order = RankBatches(num_seen, left, place.batch, place.rank, place.world_size)
        return batches(samples, order, place.workers, pin_memory=False)

    def keys(self, batch: Any) -> list[str]:
        """Return names without the number of the variant."""
        return [key.partition("#")[0] for key in batch.keys]


class WebDataset(Side):
    """Plain webdataset: tars in a random order, each read from its start, and a shuffle buffer."""

    name = distribution = module = "webdataset"

    def write(self, shards: Path, folder: Path) -> None:
        """Write tars of `FILE_BYTES`."""
        folder.mkdir()
        rows = rows_of(shards)
        for number in itertools.count():
            with tarfile.open(folder / f"{number:04d}.tar", "w") as tar:
                for row in rows:
                    for suffix in ("hr", "lq"):
                        member = tarfile.TarInfo(f"{row['key']}.{suffix}")
                        member.size = len(row[suffix])
                        tar.addfile(member, BytesIO(row[suffix]))
                    if tar.offset > FILE_BYTES:
                        break
                else:
                    return

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open it; what was seen is read once more and passed over, for there is no state."""
        webdataset = peer("webdataset")
        home = f"pipe:curl -s -f {place.http}" if place.http else place.location
        urls = [f"{home}/{name}" for name in place.files]
        os.environ |= {"RANK": str(place.rank), "WORLD_SIZE": str(place.world_size)}
        data = webdataset.WebDataset(
            urls, shardshuffle=100, seed=SEED, nodesplitter=webdataset.split_by_node, empty_check=False
        )
        rows = data.shuffle(BUFFER, rng=random.Random(SEED)).map(_named)
        rows = itertools.islice(rows, num_seen // place.world_size, None) if num_seen else rows
        return DataLoader(_Rows(rows), place.share, num_workers=place.workers, collate_fn=self._stack, drop_last=True)


def _named(sample: Row) -> Row:
    return {"key": sample["__key__"], "hr": sample["hr"], "lq": sample["lq"]}


class _Rows(torch.utils.data.IterableDataset[Row]):
    def __init__(self, rows: Iterable[Row]) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


class LitData(Side):
    """LitData: chunks, copied to the disk ahead of reading."""

    name = "LitData"
    distribution = module = "litdata"

    def write(self, shards: Path, folder: Path) -> None:
        """Optimize the samples, by one process."""
        litdata = peer("litdata")
        inputs = [(shards, number) for number in range(len(_opened(shards)))]
        litdata.optimize(_row, inputs, str(folder), chunk_bytes=FILE_BYTES, num_workers=1, verbose=False)

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open its own loader, and load its state."""
        litdata = peer("litdata")
        data = litdata.StreamingDataset(
            place.location, str(place.cache) if place.http else None, shuffle=True, drop_last=True, seed=SEED
        )
        loader = litdata.StreamingDataLoader(
            data, batch_size=place.share, num_workers=place.workers, collate_fn=self._stack, shuffle=True
        )
        if state is not None:
            loader.load_state_dict(state)
        return loader

    def state(self, loader: Any, num_seen: int) -> Any:
        """Return the loader's own."""
        return loader.state_dict()


class Mosaic(Side):
    """MosaicML Streaming: shards, copied to the disk ahead of reading; its order holds for other numbers of ranks."""

    name = "MosaicML Streaming"
    distribution = "mosaicml-streaming"
    module = "streaming"

    def write(self, shards: Path, folder: Path) -> None:
        """Write its shards."""
        streaming = peer("streaming")
        columns = {"key": "str", "hr": "bytes", "lq": "bytes"}
        with streaming.MDSWriter(out=str(folder), columns=columns, size_limit=FILE_BYTES) as writer:
            for row in rows_of(shards):
                writer.write(dict(row))

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open its dataset in its loader, and load its state."""
        streaming = peer("streaming")
        places = {"remote": place.location, "local": str(place.cache)} if place.http else {"local": place.location}
        data = streaming.StreamingDataset(
            **places, shuffle=True, shuffle_seed=SEED, batch_size=place.share, num_canonical_nodes=1
        )
        if state is not None:
            data.load_state_dict(state)
        return streaming.StreamingDataLoader(
            data, batch_size=place.share, num_workers=place.workers, collate_fn=self._stack, drop_last=True
        )

    def state(self, loader: Any, num_seen: int) -> Any:
        """Return the dataset's own, after so many images."""
        return loader.dataset.state_dict(num_seen, from_beginning=True)


class HuggingFace(Side):
    """Hugging Face `datasets`: Parquet files, streamed, and a shuffle buffer."""

    name = "Hugging Face datasets"
    distribution = module = "datasets"

    def write(self, shards: Path, folder: Path) -> None:
        """Write Parquet files of `FILE_BYTES`, each of few row groups."""
        import pyarrow
        import pyarrow.parquet

        folder.mkdir()
        rows = list(rows_of(shards))
        each = max(1, FILE_BYTES // (sum(len(row["hr"]) + len(row["lq"]) for row in rows) // len(rows)))
        for number, start in enumerate(range(0, len(rows), each)):
            table = pyarrow.Table.from_pylist([dict(row) for row in rows[start : start + each]])
            pyarrow.parquet.write_table(table, folder / f"{number:04d}.parquet", compression="none", row_group_size=16)

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open the stream, split over processes, and load its state."""
        datasets, distributed = peer("datasets"), peer("datasets.distributed")
        files = [f"{place.location}/{name}" for name in place.files]
        options = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]} if place.http else {}
        data = datasets.load_dataset(
            "parquet",
            data_files=files,
            split="train",
            streaming=True,
            storage_options=options,
            cache_dir=str(place.cache),
        )
        # With its default of 10 files that fill a buffer together, few remain to be split over processes.
        data = data.shuffle(SEED, buffer_size=BUFFER, max_buffer_input_shards=4)
        data = distributed.split_dataset_by_node(data, place.rank, place.world_size)
        if state is not None:
            data.load_state_dict(state)
        return DataLoader(data, place.share, num_workers=place.workers, collate_fn=self._stack, drop_last=True)

    def state(self, loader: Any, num_seen: int) -> Any:
        """Return the stream's own."""
        return loader.dataset.state_dict()


class Lance(Side):
    """Lance: a columnar table with random access, in an order of one's own."""

    name = "Lance"
    distribution = "pylance"
    module = "lance"
    reads_from_store = False  # over ten minutes; why was not examined

    def write(self, shards: Path, folder: Path) -> None:
        """Write one table."""
        import pyarrow

        peer("lance").write_dataset(pyarrow.Table.from_pylist([dict(row) for row in rows_of(shards)]), str(folder))

    def loader(self, place: Place, state: Any, num_seen: int) -> Iterable[Any]:
        """Open its map-style dataset with a permutation, of which the seen part is cut off."""
        options = {"aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "allow_http": "true"} if place.http else {}
        data = peer("lance.torch.data").SafeLanceDataset(place.location, dataset_options={"storage_options": options})
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(SEED))[num_seen:]
        order = order[: len(order) // place.batch * place.batch].view(-1, place.world_size, place.share)
        return DataLoader(
            data,
            batch_sampler=_Given(order[:, place.rank].tolist()),
            num_workers=place.workers,
            collate_fn=self._stack,
            multiprocessing_context="spawn" if place.workers else None,
        )


class _Given(Sampler[list[int]]):
    def __init__(self, given: list[list[int]]) -> None:
        self._given = given

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


SIDES: dict[str, type[Side]] = {side.name: side for side in (Ours, WebDataset, LitData, Mosaic, HuggingFace, Lance)}
