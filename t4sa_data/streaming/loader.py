"""The loader: epochs of batches, and a state that says where it is. A batch counts when it is taken."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import torch

from t4sa_data import plan
from t4sa_data.errors import BadOption
from t4sa_data.reading import OpenRelease
from t4sa_data.streaming.engine import Engine, Epoch
from t4sa_data.streaming.options import Options
from t4sa_data.streaming.ranks import find_rank, refuse, require_only_sharding
from t4sa_data.streaming.selection import Selection
from t4sa_data.streaming.state import check_state, make_state

if TYPE_CHECKING:
    from t4sa_data.streaming.apart import Apart


class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
    """Batches of a split; made by `t4sa_data.stream`.

    It is a loader, not a dataset to be wrapped in one: its batches are whole, and each rank gets its own part of them.
    Iterating goes through one epoch and then moves on to the next by itself, also where whoever iterates stops at
    `len` without asking for more (Lightning does); `set_epoch` names one.

    Attributes:
        selection: the samples that take part.
        classes: names of the labels.
        epoch: that is being gone through, or comes next.
    """

    def __init__(self, release: OpenRelease, selection: Selection, options: Options, *, epoch: int = 0) -> None:
        super().__init__()
        self.release, self.selection, self.options = release, selection, options
        self.classes = selection.classes
        self.epoch = epoch
        self._batches = 0  # of this epoch, taken
        self._resume = False  # the next iteration goes on at `_batches`
        self._is_named = False  # somebody asked for this very epoch
        self._running: object | None = None  # the iteration whose batches count
        self._digest: str | None = None
        if not len(self):
            raise BadOption(
                "fewer samples than a batch, and incomplete batches are dropped",
                expected=f"at least {options.batch_size} samples",
                got=f"{len(selection)}",
                hint='A smaller batch_size, or tail="wrap" or "ragged".',
            )

    def __repr__(self) -> str:
        o = self.options
        return (
            f"Stream({len(self.selection):,} of {self.selection.num_split:,} samples of {self.release.where}, "
            f"{len(self):,} batches of {o.batch_size}, shuffle={o.shuffle}, tail={o.tail}, epoch={self.epoch})"
        )

    @property
    def num_samples(self) -> int:
        """Rows of an epoch, all ranks together, before the tail is dropped or wrapped."""
        return len(self.selection)

    @property
    def plan_digest(self) -> str:
        """sha256 of what decides an epoch's samples, labels and order."""
        if self._digest is None:
            s, o = self.selection, self.options
            self._digest = plan.plan_digest(
                s.positions,
                labels=s.label,
                probabilities=None if s.has_own_probabilities else s.probabilities,
                weights=o.weights,
                shuffle=o.shuffle,
                tail=o.tail,
            )
        return self._digest

    def __len__(self) -> int:
        """Batches of an epoch, the same on every rank."""
        return plan.num_batches(len(self.selection), self.options.batch_size, self.options.tail)

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch that the next iteration goes through; one that a state was loaded for goes on where it was."""
        if epoch != self.epoch:
            epoch = operator.index(epoch)
            self.epoch, self._batches, self._resume, self._running = epoch, 0, False, None
        self._is_named = True

    def state_dict(self) -> dict[str, Any]:
        """Where this loader is: a few JSON values, the same on every rank. Batches count when they are taken."""
        return make_state(
            content_digest=self.selection.content_digest,
            plan_digest=self.plan_digest,
            seed=self.options.seed,
            epoch=self.epoch,
            batch_size=self.options.batch_size,
            batches=self._batches,
        )

    def load_state_dict(self, state: Mapping[str, Any], *, accept_release: bool = False) -> None:
        """Go on where a loader was, on any number of ranks and workers.

        Args:
            state: of `state_dict`.
            accept_release: take the state of another release (of one that was withdrawn): the next epoch begins, as
                the order of that one is gone.

        Raises:
            StateMismatch: it belongs to another release, plan, seed or global batch size; shows both values.
        """
        self.epoch, self._batches = check_state(
            state, self.state_dict(), num_batches=len(self), accept_release=accept_release
        )
        self._resume, self._is_named, self._running = True, False, None

    def to(self, device: Any, *, normalize: Any = None, dtype: Any = None, apart: bool | None = None) -> Any:
        """The same loader with its batches on a device; see `streaming.device.DeviceStream`."""
        from t4sa_data.streaming.device import DeviceStream

        return DeviceStream(self, device, normalize=normalize, dtype=dtype, apart=apart)

    def __getitem__(self, index: Any) -> Any:
        """Always an error: nobody else shares out a stream's samples."""
        refuse("a stream is not a dataset that others index and share out")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        require_only_sharding()
        if self.options.recipe.decode == "cuda":
            raise BadOption('decode="cuda" decodes on the device', hint='Iterate over stream(...).to("cuda").')
        return self.batches()

    def batches(
        self,
        *,
        pin: bool = False,
        apart: Apart | None = None,
        through: Callable[[Any], Iterator[Any]] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """What iterating does.

        Args:
            pin: pictures in page-locked memory, for copies to a GPU.
            apart: a process that makes the batches; `through` gets its `Run`.
            through: what batches go through before they are taken, and count.
        """
        run = self._running = object()
        if self._batches == len(self) and not (self._resume or self._is_named):  # all of it was taken, in this run
            self.epoch += 1
        first = self._batches if self._resume else 0
        self._batches, self._resume, self._is_named = first, False, False
        epoch = self.epoch
        with self._made(epoch, first, pin, apart) as made:
            for number, batch in enumerate(made if through is None else through(made), first + 1):
                if self._running is run:
                    self._batches = number
                yield batch
        if self._running is run:
            self.epoch, self._batches, self._running = epoch + 1, 0, None

    @contextmanager
    def _made(self, epoch: int, first: int, pin: bool, apart: Apart | None) -> Iterator[Any]:
        """The batches of an epoch from `first` on, made by threads here or by a process."""
        rank, world_size = find_rank(self.options.rank, self.options.world_size)
        if apart is not None:
            with closing(apart.run(epoch, first, len(self), rank, world_size)) as run:
                yield run
            return
        order = Epoch(self.selection, self.options, epoch, rank, world_size)
        with Engine(self.release, self.selection, self.options, epoch, pin=pin) as engine:
            yield engine.run(order, first, len(self))
