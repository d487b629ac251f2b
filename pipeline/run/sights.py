"""What the discriminators of a run see, shown at its validations: their decisions and their attention on one photo."""

from __future__ import annotations

import contextlib
import logging
from typing import cast

from pipeline.checkpoint.run_folder import RunFolder
from pipeline.config.schema import TrainConfig
from pipeline.errors import SaveError, saving
from pipeline.inference.evaluate import Evaluated
from pipeline.inference.pictures import write_png
from pipeline.inference.visualise.opened import OpenRun
from pipeline.inference.visualise.photos import Photo, middle_of
from pipeline.inference.visualise.sight import quick_look
from pipeline.models.discriminators import Discriminator
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
        semantics: Of the run; a semantic-aware discriminator is shown where they are computed, not where cached.
        backend: Ranks and devices.
    """

    def __init__(
        self, config: TrainConfig, state: TrainingState, semantics: SemanticSource | None, backend: Backend
    ) -> None:
        self._config = config
        self._state = state
        self._extractor = None if semantics is None else semantics.extractor
        self._backend = backend
        self._has_warned = False

    def show(self, shown: Evaluated | None, images_seen: int, tracker: Trackers) -> None:
        """Draw what is seen of a photo, and give it to the trackers. All ranks must call.

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
        except SaveError:
            raise
        except Exception as error:  # noqa: BLE001 - such as a GPU without memory left; no picture is worth a run
            if not self._has_warned:
                self._has_warned = True
                _LOG.warning("what the discriminators see cannot be shown: %s", error)
            return {}

    def _look(self, photo: Photo) -> dict[str, Pixels]:
        config, extractor = self._config, self._extractor
        bare = {name: cast(Discriminator, network.bare) for name, network in self._state.discriminators.items()}
        visible = {
            name: network
            for name, network in bare.items()
            if extractor is not None or not config.discriminators[name].semantic
        }
        if min(photo.gt.shape[:2]) < config.data.crop_px or not visible:
            return {}
        are_training = {name: network.training for name, network in visible.items()}
        try:
            for network in visible.values():
                network.eval()  # or a look would change the spectral norms
            return quick_look(OpenRun(RunFolder(config.run_dir), config, visible, extractor, ""), photo)
        finally:
            for name, network in visible.items():
                network.train(are_training[name])
