"""Where the files of an evaluation set are: the layouts in which the field's sets are distributed.

A set is a folder in one of `LAYOUTS`, or the HR folder of such a set. LR is optional: it is made where a set has none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shards.errors import InputError
from shards.format.lq_names import LQ_NAMES, lq_stems
from shards.format.photos import describe_passed_over, list_photos, photo_suffixes

_SHOWN_ENTRIES = 5


@dataclass(frozen=True)
class Layout:
    """One layout. In folders and names `{scale}` is the enlargement, and `{name}` the image.

    Attributes:
        shown: As people are told of it.
        hr: Folder of HR in the set; `.` is the set itself.
        lr: Folders that may hold LR; the first that exists is used.
        hr_name: An HR file without its ending.
        lr_names: Its LR file, which has the same ending: one of these.
        scale: The only one whose LR it holds; None: of any.
    """

    shown: str
    hr: str
    lr: tuple[str, ...] = ()
    hr_name: str = "{name}"
    lr_names: tuple[str, ...] = LQ_NAMES
    scale: int | None = None

    def name_of(self, hr_file: Path) -> str | None:
        """Return the image that a file is the HR of; None where it is something else."""
        before, after = self.hr_name.split("{name}")
        stem = hr_file.stem
        is_hr = stem.startswith(before) and stem.endswith(after) and len(stem) > len(before + after)
        return stem[len(before) : len(stem) - len(after)] if is_hr else None


def _self_exemplars(scale: int, folder: str) -> Layout:
    return Layout(
        "image_SRF_4/ with NAME_SRF_4_HR.png and NAME_SRF_4_LR.png",
        folder,
        (folder,),
        f"{{name}}_SRF_{scale}_HR",
        (f"{{name}}_SRF_{scale}_LR",),
        scale,
    )


LAYOUTS = (
    Layout("HR/ with LRx4/ or LR_bicubic/X4/", "HR", ("LRx{scale}", "LR_bicubic/X{scale}")),
    # Cut to a multiple of the number, as the LR beside it was made; the original is not.
    *(Layout("GTmod12/ (GTmod4/, ...) with LRbicx4/", f"GTmod{n}", ("LRbicx{scale}",)) for n in (12, 8, 6, 4, 3, 2)),
    Layout("original/ with LRbicx4/", "original", ("LRbicx{scale}",)),
    *(_self_exemplars(scale, folder) for scale in (2, 3, 4, 8) for folder in (f"image_SRF_{scale}", ".")),
    Layout("DIV2K_valid_HR/ with DIV2K_valid_LR_bicubic/X4/", "DIV2K_valid_HR", ("DIV2K_valid_LR_bicubic/X{scale}",)),
    Layout("images alone", "."),
)
"""In the order in which they are looked for."""


@dataclass(frozen=True)
class SetImage:
    """One image of a set.

    Attributes:
        name: Of the image, as in results.
        hr: Its file.
        lr: Where its LR at a scale may be; empty where the set has no LR of that scale.
    """

    name: str
    hr: Path
    lr: tuple[Path, ...]


@dataclass(frozen=True)
class EvaluationSet:
    """A set on disk.

    Attributes:
        root: The folder that its layout begins in.
        layout: How its files lie there.
    """

    root: Path
    layout: Layout

    @property
    def hr(self) -> Path:
        """Folder of its HR images."""
        return self.root / self.layout.hr

    def hr_files(self) -> list[tuple[str, Path]]:
        """Return its images and their HR files, sorted by file.

        Raises:
            InputError: There is none, or two of the same name, of which results could show one.
        """
        files = list(self._hr_files())
        if not files:
            got = describe_passed_over([list_photos(self.hr, recursive=False)]) or "it has none"
            raise InputError(f"no images in {self.hr}; expected {', '.join(sorted(photo_suffixes()))}; {got}")
        by_name: dict[str, Path] = {}
        for name, file in files:
            if (first := by_name.setdefault(name, file)) != file:
                raise InputError(f"{first} and {file.name} differ in their ending alone; rename one, or remove it")
        return files

    def images(self, scale: int) -> list[SetImage]:
        """Return its images with their LR at a scale; see `hr_files`."""
        return [SetImage(name, file, self._lr(name, file.suffix, scale)) for name, file in self.hr_files()]

    def _hr_files(self) -> Iterator[tuple[str, Path]]:
        for file in list_photos(self.hr, recursive=False).photos:
            if (name := self.layout.name_of(file)) is not None:
                yield name, file

    def _lr(self, name: str, ending: str, scale: int) -> tuple[Path, ...]:
        if self.layout.scale not in (None, scale):
            return ()
        for template in self.layout.lr:
            folder = self.root / template.format(scale=scale)
            if folder.is_dir():
                return tuple(folder / f"{stem}{ending}" for stem in lq_stems(name, scale, self.layout.lr_names))
        return ()

    def files(self) -> list[Path]:
        """Return every file that an evaluation may read: HR and LR at any scale."""
        templates = (template for template in self.layout.lr if "{scale}" in template)  # others: the HR folder
        lr = [folder for template in templates for folder in self.root.glob(template.format(scale="*"))]
        return [path for folder in (self.hr, *lr) if folder.is_dir() for path in folder.iterdir()]

    def is_there(self) -> bool:
        """Return whether there is such a set: its HR folder, or in a folder without a telling name an image."""
        return self.hr.is_dir() and (self.layout.hr != "." or next(self._hr_files(), None) is not None)


def find_set(folder: Path, scale: int | None = None) -> EvaluationSet:
    """Return the set in a folder; where it holds one for each of several scales, that of `scale`, else the first.

    Raises:
        InputError: The folder is missing, or in no layout; lists them.
    """
    found = find_sets(folder)
    first = found[0]
    return first if first.layout.scale is None else next((one for one in found if one.layout.scale == scale), first)


def find_sets(folder: Path) -> list[EvaluationSet]:
    """Return every set that a folder can be taken for, the likeliest first; see `find_set`."""
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}; an evaluation set is a folder with\n  {_recognised()}")
    places = [EvaluationSet(folder, layout) for layout in LAYOUTS]
    places += [EvaluationSet(folder.parent, layout) for layout in LAYOUTS if folder.name == layout.hr]
    # Given the HR folder itself, its images alone come last: the set may have LR beside it.
    places.sort(key=lambda place: place.layout == LAYOUTS[-1])
    if found := [place for place in places if place.is_there()]:
        return found
    held = sorted(path.name for path in folder.iterdir())
    more = ", ..." if len(held) > _SHOWN_ENTRIES else ""
    raise InputError(
        f"no evaluation set in {folder}; got {', '.join(held[:_SHOWN_ENTRIES]) or 'an empty folder'}{more}; "
        f"recognised are folders with (LR is made where it is missing)\n  {_recognised()}"
    )


def _recognised() -> str:
    return "\n  ".join(dict.fromkeys(layout.shown for layout in LAYOUTS))
