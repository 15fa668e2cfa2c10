"""What trainers, importers and evaluators raise on purpose; messages are built as `t4sa_data.errors` builds them."""

from __future__ import annotations

from t4sa_data.errors import T4SAError


class ModelFileError(T4SAError):
    """A file of weights or of a network is damaged, or not what its name says."""


class UnsupportedLayer(ModelFileError):
    """A network holds a layer, or an option of one, that is not read here."""


class WeightsMismatch(ModelFileError):
    """Weights and network, or network and classes, do not belong together."""


class WeightsUnavailable(T4SAError):
    """Initial weights that have to be fetched, or brought, by the user."""


class DeviceError(T4SAError):
    """The wanted device is not here, or its memory does not suffice."""


class RunError(T4SAError):
    """A run folder cannot be begun, or gone on with."""


class TrainingDiverged(T4SAError):
    """The loss is no longer a number."""


class PredictionsError(T4SAError):
    """A table of predictions does not fit the samples it is about."""


class Needs(T4SAError):
    """A system of the paper's tables needs a file that only the user can bring."""
