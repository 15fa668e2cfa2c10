"""Batches on a device: copied ahead on a side stream, cropped, mirrored and normalised there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from t4sa_data.errors import BadImage, BadOption, MissingDependency
from t4sa_data.streaming.apart import Apart, Run, can_be_apart
from t4sa_data.streaming.feeding import Feeder
from t4sa_data.streaming.images import FastDecoder, crop_and_flip, fit
from t4sa_data.streaming.jpeg import is_plain_jpeg
from t4sa_data.streaming.ranks import find_rank
from t4sa_data.streaming.work import FaultyPicture, located

if TYPE_CHECKING:
    from t4sa_data.streaming.loader import Stream

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of R, G, B in 0 to 1, as torchvision's weights were trained with."""


BATCHES_AHEAD = 2
"""Batches that wait on the device: one is enough to hide the copy, another evens out."""
SLOTS_READ = 1
"""Slots that copies still read from, when the next batch is waited for; fewer than `apart.SPARE_SLOTS`."""


class DeviceStream:
    """A stream whose batches lie on a device; otherwise the stream itself: same batches, same state.

    Args:
        stream: to take batches from.
        device: `cuda`, `cuda:1`, `mps`, `cpu`.
        normalize: mean and standard deviation of R, G, B in 0 to 1: pictures become floats `(x / 255 - mean) / std`;
            None: they stay uint8.
        dtype: of normalised pictures; None: float32.
        apart: read and decode in a process of its own (see `streaming.apart`), so that training steps and decoding do
            not take turns at Python's lock; None: for a CUDA device, where that can be.

    Raises:
        BadOption: no such device here, or one that cannot decode where `decode="cuda"` wants it to.
        MissingDependency: `decode="cuda"` without torchcodec.
    """

    def __init__(
        self,
        stream: Stream,
        device: Any,
        *,
        normalize: tuple[Sequence[float], Sequence[float]] | None = None,
        dtype: torch.dtype | None = None,
        apart: bool | None = None,
    ) -> None:
        self.stream, self.device = stream, torch.device(device)
        self._geometry = stream.options.recipe.geometry
        self._decodes = stream.options.recipe.decode == "cuda"
        if self._decodes and self.device.type != "cuda":
            raise BadOption('decode="cuda" needs a CUDA device', got=self.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise BadOption("no CUDA device on this machine", got=self.device, hint='decode="cpu" and .to("cpu").')
        self._decode_on_cpu = FastDecoder() if self._decodes else None
        if self._decodes:
            _gpu_decoder()
        self._is_apart = can_be_apart(stream.release, stream.options) and (
            self.device.type == "cuda" if apart is None else apart
        )
        self._apart: Apart | None = None
        self._dtype = dtype or torch.float32
        self._normalize = None
        if normalize is not None:
            mean, std = (torch.tensor(one, device=self.device, dtype=torch.float32) for one in normalize)
            # (x / 255 - mean) / std as one multiplication and one addition; shapes [3, 1, 1].
            self._normalize = (1 / (255 * std))[:, None, None], (-mean / std)[:, None, None]

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.stream)

    def __getattr__(self, name: str) -> Any:
        """Whatever else a stream has: `epoch`, `classes`, `selection`, ..."""
        return getattr(self.__dict__["stream"], name)

    def set_epoch(self, epoch: int) -> None:
        """See `Stream.set_epoch`."""
        self.stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """See `Stream.state_dict`: a batch that was copied ahead does not count."""
        return self.stream.state_dict()

    def load_state_dict(self, state: Mapping[str, Any], *, accept_release: bool = False) -> None:
        """See `Stream.load_state_dict`."""
        self.stream.load_state_dict(state, accept_release=accept_release)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        is_cuda = self.device.type == "cuda"
        if self._is_apart:
            return self.stream.batches(apart=self._process(), through=self._ahead_of_slots)
        return self.stream.batches(pin=is_cuda, through=self._ahead if is_cuda else self._moved)

    def close(self) -> None:
        """End the process, where there is one; another iteration starts another."""
        if self._apart is not None:
            self._apart.close()
            self._apart = None

    def _process(self) -> Apart:
        if self._apart is None:
            s = self.stream
            _, world_size = find_rank(s.options.rank, s.options.world_size)
            rows = -(-s.options.batch_size // world_size)
            self._apart = Apart(s.release, s.selection, s.options, rows=rows, pin=self.device.type == "cuda")
        return self._apart

    def _moved(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            yield self._move(batch)

    def _ahead(self, batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Copy batches in a thread, on a stream of their own, while those before are worked on."""
        feeder = Feeder(batches, self._copier(), ahead=BATCHES_AHEAD)
        try:
            for moved, event in feeder:
                yield self._ready(moved, event)
        finally:
            feeder.close()

    def _ahead_of_slots(self, run: Run) -> Iterator[dict[str, Any]]:
        """The same with batches whose pictures lie in memory that is given back once they are copied."""
        copy, reading = self._copier(), deque[tuple[Any, int]]()

        def copied_from_slot(given: tuple[dict[str, Any], int]) -> tuple[dict[str, Any], Any]:
            batch, slot = given
            moved, event = copy(batch)
            reading.append((event, slot))
            while len(reading) > SLOTS_READ:
                _wait_for(reading[0][0])
                run.free(reading.popleft()[1])
            return moved, event

        feeder = Feeder(iter(run), copied_from_slot, ahead=BATCHES_AHEAD)
        try:
            for moved, event in feeder:
                yield self._ready(moved, event)
        finally:
            run.leave()
            feeder.close()
            for event, _ in reading:
                _wait_for(event)

    def _copier(self) -> Callable[[dict[str, Any]], tuple[dict[str, Any], Any]]:
        """What copies a batch, and says when that is done: an event, or None where it is done at once."""
        if self.device.type != "cuda":
            return lambda batch: (self._move(batch | {"image": batch["image"].clone()}), None)
        side = torch.cuda.Stream(self.device)

        def copy_ahead(batch: dict[str, Any]) -> tuple[dict[str, Any], Any]:
            with torch.cuda.device(self.device), torch.cuda.stream(side):
                return self._move(batch), side.record_event()

        return copy_ahead

    def _ready(self, batch: dict[str, Any], copied: Any) -> dict[str, Any]:
        if copied is None:
            return batch
        current = torch.cuda.current_stream(self.device)
        current.wait_event(copied)
        for value in batch.values():
            if isinstance(value, torch.Tensor) and value.is_cuda:
                value.record_stream(current)  # its memory is not given to another batch of the side stream before
        return batch

    def _move(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._decodes:
            batch["image"] = self._decoded(batch.pop("image"), batch["position"], batch.pop("uniforms", None))
        moved = {name: self._to_device(value) for name, value in batch.items()}
        if "crop" in moved and isinstance(moved["image"], torch.Tensor):
            side = self._geometry.augment.crop or self._geometry.size
            moved["image"] = crop_and_flip(moved["image"], moved.pop("crop"), moved.pop("flip"), side)
        if self._normalize is not None:
            moved["image"] = (
                self._normalized(moved["image"])
                if isinstance(moved["image"], torch.Tensor)
                else [self._normalized(image) for image in moved["image"]]
            )
        return moved

    def _to_device(self, value: Any) -> Any:
        if isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            return [one.to(self.device, non_blocking=True) for one in value]
        return value.to(self.device, non_blocking=True) if isinstance(value, torch.Tensor) else value

    def _normalized(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        assert self._normalize is not None
        scale, shift = self._normalize
        return (x_BCHW * scale + shift).to(self._dtype)

    def _decoded(self, data: list[bytes], position: torch.Tensor, uniforms: Any) -> Any:
        """Pictures of bytes, decoded by the GPU where they are plain JPEGs.

        Args:
            data: the bytes of B pictures.
            position: of each, shape (B,).
            uniforms: random numbers in [0, 1), shape (B, NUM_UNIFORMS); None where nothing is drawn.

        Raises:
            BadImage: names key, file and byte.
        """
        plain = [i for i, one in enumerate(data) if is_plain_jpeg(one)]
        tensors = [torch.from_numpy(np.frombuffer(data[i], np.uint8).copy()) for i in plain]
        images: list[Any] = [None] * len(data)
        try:
            made = _gpu_decoder()(tensors, mode="RGB", device=self.device) if tensors else []
        except RuntimeError:  # one of them is damaged: the CPU's decoder finds which
            plain, made = [], []
        for i, image in zip(plain, made, strict=True):
            images[i] = image
        for i, one in enumerate(data):
            image = images[i] if images[i] is not None else self._on_cpu(one, int(position[i])).to(self.device)
            images[i] = fit(image, self._geometry, None if uniforms is None else uniforms[i])
        return images if self._geometry.resize == "none" else torch.stack(images)

    def _on_cpu(self, data: bytes, position: int) -> torch.Tensor:
        assert self._decode_on_cpu is not None
        try:
            return self._decode_on_cpu(data)
        except BadImage as error:
            selection = self.stream.selection
            row = int(np.searchsorted(selection.positions, position))
            raise located(FaultyPicture(0, error), selection.where(row)) from error


def _wait_for(event: Any) -> None:
    if event is not None:
        event.synchronize()


def _gpu_decoder() -> Any:
    try:
        from torchcodec.decoders import decode_jpeg
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependency('decode="cuda" needs torchcodec', hint='pip install "t4sa-data[torch]"') from error
    return decode_jpeg
