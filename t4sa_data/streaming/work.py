"""What a worker does with a few pictures: check, decode, fit, transform. The same in a thread and in a process."""

from __future__ import annotations

import hashlib
import inspect
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from t4sa_data.errors import BadImage, ChecksumMismatch, UnseededTransform
from t4sa_data.streaming.images import FastDecoder, Geometry, as_tensor, fit, place
from t4sa_data.streaming.jpeg import plain_jpeg_size
from t4sa_data.streaming.placing import FILL_ERRORS, filler

Decode = Literal["cpu", "cuda"] | None
DECODES = ("cpu", "cuda", None)
_NOT_TOGETHER: tuple[type[Exception], ...] = (*FILL_ERRORS, ChecksumMismatch)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What becomes of a picture's bytes; goes to workers once."""

    decode: Decode
    """None: nothing, batches hold the bytes; `cuda`: the device will decode them."""
    geometry: Geometry
    transform: Callable[..., Any] | None = None

    @property
    def takes_generator(self) -> bool:
        """Whether the transform takes its random numbers from a `generator=` that it is given."""
        if self.transform is None:
            return False
        try:
            return "generator" in inspect.signature(self.transform).parameters
        except (TypeError, ValueError):  # a builtin
            return False


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A few pictures to be worked on."""

    data: Sequence[bytes]
    sha256: Sequence[str] | None
    """What they must be; None: not checked."""
    seeds: npt.NDArray[np.uint64]
    """f(seed, epoch, position) of each."""
    uniforms: npt.NDArray[np.float64] | None = None
    """Random numbers of each for its geometry: `images.draw` of the seeds."""

    def __len__(self) -> int:
        return len(self.data)

    def part(self, numbers: Sequence[int]) -> Chunk:
        """Some of the pictures."""
        if len(numbers) == len(self.data):
            return self
        return Chunk(
            data=[self.data[i] for i in numbers],
            sha256=None if self.sha256 is None else [self.sha256[i] for i in numbers],
            seeds=self.seeds[numbers],
            uniforms=None if self.uniforms is None else self.uniforms[numbers],
        )


class FaultyPicture(Exception):
    """Something is wrong with one picture of a chunk; the loader, which knows where it is from, says so."""

    def __init__(self, index: int, error: Exception) -> None:
        super().__init__(index, error)
        self.index, self.error = index, error


class Worker:
    """Works on chunks.

    Args:
        recipe: what becomes of pictures.
        owns_process: nobody else draws from this process's global generators: they are seeded for each picture, so that
            transforms which use them can be repeated.
    """

    def __init__(self, recipe: Recipe, *, owns_process: bool = False) -> None:
        self._recipe, self._owns_process = recipe, owns_process
        self._decode = FastDecoder()
        self._fill = filler(self._decode.name)
        self._takes_generator = recipe.takes_generator

    def __call__(self, chunk: Chunk, numbers: Sequence[int] | None = None) -> list[Any]:
        """The pictures of a chunk: uint8 tensors, what the transform makes of them, or bytes.

        Args:
            chunk: of n pictures.
            numbers: what an error calls them; None: 0 to n - 1.

        Raises:
            FaultyPicture: around `ChecksumMismatch`, `BadImage`, or whatever the transform raises.
        """
        recipe, uniforms = self._recipe, chunk.uniforms
        made = []
        for i, data in enumerate(chunk.data):
            try:
                if chunk.sha256 is not None:
                    _require_sha256(data, chunk.sha256[i])
                image: Any = data
                if recipe.decode == "cpu":
                    image = fit(self._decode(data), recipe.geometry, None if uniforms is None else uniforms[i])
                if recipe.transform is not None:
                    image = self._transformed(image, int(chunk.seeds[i]))
            except Exception as error:
                raise FaultyPicture(i if numbers is None else numbers[i], error) from error
            made.append(image)
        return made

    def fill(self, chunk: Chunk, out: torch.Tensor) -> None:
        """The pictures of a chunk straight into their part of a batch, where there is no transform.

        Plain JPEGs go together in one call that does not hold Python's lock; the others, and those of a call in which
        one did not decode, one by one: the same pixels, and an error that says which.

        Args:
            chunk: of n pictures.
            out: uint8 [n, 3, side, side].

        Raises:
            FaultyPicture: see `__call__`.
        """
        alone: Sequence[int] = range(len(chunk))
        if self._fill is not None:
            sizes = [plain_jpeg_size(data) for data in chunk.data]
            plain = [i for i, size in enumerate(sizes) if size is not None]
            if plain and self._fill_plain(chunk.part(plain), [size for size in sizes if size], out, plain):
                alone = [i for i, size in enumerate(sizes) if size is None]
        if alone:
            for i, image in zip(alone, self(chunk.part(alone), alone), strict=True):
                out[i] = image

    def _fill_plain(
        self, chunk: Chunk, sizes: Sequence[tuple[int, int]], out: torch.Tensor, rows: Sequence[int]
    ) -> bool:
        """Plain JPEGs into their rows of `out`; False: not all of them, one by one they say which."""
        assert self._fill is not None
        try:
            if chunk.sha256 is not None:
                for data, sha256 in zip(chunk.data, chunk.sha256, strict=True):
                    _require_sha256(data, sha256)
            places = out.unbind()
            self._fill(
                [places[i] for i in rows],
                [as_tensor(data) for data in chunk.data],
                place(sizes, self._recipe.geometry, chunk.uniforms),
            )
        except _NOT_TOGETHER:
            return False
        return True

    def _transformed(self, image: Any, seed: int) -> Any:
        assert self._recipe.transform is not None
        if self._takes_generator:
            return self._recipe.transform(image, generator=torch.Generator().manual_seed(seed & (2**63 - 1)))
        if self._owns_process:
            torch.manual_seed(seed & (2**63 - 1))
            np.random.seed(seed & (2**32 - 1))
            random.seed(seed)
        return self._recipe.transform(image)


def _require_sha256(data: bytes, expected: str) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise ChecksumMismatch(
            "the bytes of a picture are not those of the release",
            expected=expected,
            got=found,
            hint="Run `t4sa check` on a local release; a remote one was replaced, or damaged on the way.",
        )


def located(fault: FaultyPicture, where: str) -> Exception:
    """The error of a faulty picture, with where it is from.

    Args:
        fault: what a worker raised.
        where: key, file and byte.
    """
    error = fault.error
    if isinstance(error, BadImage):
        return BadImage(
            f"a picture does not decode ({error.what})",
            reason=error.reason,
            where=where,
            hint="Run `t4sa check --deep`. To do without it: where={'removals': [KEY]}.",
        )
    if isinstance(error, ChecksumMismatch):
        error.where = where
    else:  # of the user's transform
        error.add_note(f"while {where} was worked on")
    return error


def require_seeded(recipe: Recipe, chunk: Chunk) -> None:
    """Try a transform that will run in threads on one chunk: it must not draw from global generators.

    Raises:
        UnseededTransform: it does; its result could not be repeated.
        FaultyPicture: see `Worker`.
    """
    if recipe.transform is None or recipe.takes_generator:
        return
    before = _generator_states()
    Worker(recipe)(chunk)
    if _generator_states() != before:
        raise UnseededTransform(
            "the transform draws from a global random generator, which threads share: no run could be repeated",
            hint="Give it a parameter `generator` (a torch.Generator, seeded for each picture), or use "
            'workers="processes", where the global generators are seeded for each picture.',
        )


def _generator_states() -> tuple[Any, ...]:
    _, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), np.asarray(keys).tobytes(), *rest
