"""What the discriminators of a run see, shown at its validations: their decisions and their attention on one photo."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import cast

from torch import nn

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.errors import saving
from pipeline.inference.evaluate import Evaluated
from pipeline.inference.pictures import write_png
from pipeline.inference.visualise.opened import OpenRun
from pipeline.inference.visualise.photos import Photo, middle_of
from pipeline.inference.visualise.sight import quick_look
from pipeline.models.discriminators import Discriminator
from pipeline.models.semantics.extractor import SemanticExtractor
from pipeline.run.inputs import SemanticSource
from pipeline.runtime.backend import Backend
from pipeline.tracking import Trackers
from pipeline.train.state import TrainingState
from shards.format.png import Pixels

_LOG = logging.getLogger(__name__)
_LARGEST_PX = 384
"""Of a larger photo the middle is shown, so that it costs little beside the validation."""


class Sights:
    """Draws them, on the leader.

    Args:
        config: The run's configuration.
        state: Of the run; its discriminators are as they were when a call returns.
        semantics: Of the run; None for one without.
        backend: Ranks and devices.
    """

    def __init__(
        self, config: TrainConfig, state: TrainingState, semantics: SemanticSource | None, backend: Backend
    ) -> None:
        self._config = config
        self._state = state
        self._extractor = semantics.viewer if semantics is not None and backend.is_leader else None
        self._is_cached = semantics is not None and semantics.extractor is None
        self._backend = backend
        self._has_warned = False

    def show(self, shown: Evaluated | None, images_seen: int, tracker: Trackers) -> None:
        """Draw what is seen of a photo, and send it to the trackers. All ranks must call.

        Args:
            shown: A photo of the validation, on the leader.
            images_seen: The position.
            tracker: Where the pictures are shown.
        """
        schedule = self._config.schedule
        if not self._config.is_adversarial or images_seen <= schedule.pixel_only_images:
            return
        with contextlib.ExitStack() as stack:
            for network in self._state.discriminators.values():
                stack.enter_context(network.whole())
            if self._backend.is_leader and shown is not None:
                for name, picture in self._pictures(shown).items():
                    path = RunFolder(self._config.run_dir).pictures / f"{name.replace('/', '_')}.png"
                    with saving(path):
                        write_png(path, picture, job="train_sed")
                    tracker.picture(name, path, images_seen)

    def _pictures(self, shown: Evaluated) -> dict[str, Pixels]:
        photo = middle_of(shown.pair.name, shown.pair.gt, shown.sr, self._config.generator.scale, _LARGEST_PX)
        try:
            return self._look(photo)
        except RuntimeError as error:  # no memory left on the device: no picture is worth a run
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning("what the discriminators see cannot be shown: %s", error)
            return {}

    def _look(self, photo: Photo) -> dict[str, Pixels]:
        config = self._config
        networks = {name: cast(Discriminator, network.bare) for name, network in self._state.discriminators.items()}
        if min(photo.gt.shape[:2]) < config.data.crop_px:
            return {}
        with _seeing(networks.values()), self._extractor_on_device() as extractor:
            return quick_look(OpenRun(RunFolder(config.run_dir), config, networks, extractor, ""), photo)

    @contextlib.contextmanager
    def _extractor_on_device(self) -> Iterator[SemanticExtractor | None]:
        """Yield the extractor; where features are cached, it is on the device only for this block."""
        extractor = self._extractor
        if extractor is None or not self._is_cached:
            yield extractor
            return
        try:
            yield extractor.to(self._backend.device)
        finally:
            extractor.to("cpu")


@contextlib.contextmanager
def _seeing(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Put networks in evaluation mode for this block, or a look would change their spectral norms."""
    are_training = [(network, network.training) for network in networks]
    try:
        for network, _ in are_training:
            network.eval()
        yield
    finally:
        for network, is_training in are_training:
            network.train(is_training)
