"""The named error inside what `datasets` wraps around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from t4sa_data.errors import NoRows, T4SAError


@contextmanager
def explain_generation_errors() -> Iterator[None]:
    """Raise the named error inside what `datasets` wraps around it (`DatasetGenerationError`)."""
    try:
        yield
    except T4SAError:
        raise
    except Exception as error:
        for cause in causes(error):
            if isinstance(cause, T4SAError):
                raise cause from error
        if isinstance(error, ValueError) and "corresponds to no data" in str(error):  # `datasets` has no empty split
            raise NoRows(
                "the filters or the slice leave no row", got=str(error), hint="Widen them, or load with streaming=True."
            ) from error
        raise


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
