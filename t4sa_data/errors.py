"""Every error this package raises on purpose: one class per kind of fault, all under `T4SAError`.

A message is one line: what is wrong, what was expected, what was found, where (file, member, row, byte), what to do.
"""

from __future__ import annotations


class T4SAError(Exception):
    """Base of all errors of this package.

    Args:
        what: what is wrong, without a full stop.
        expected: what should have been there.
        got: what was there.
        where: file, member, row or byte.
        hint: what the user can do next.
    """

    def __init__(
        self,
        what: str,
        *,
        expected: object | None = None,
        got: object | None = None,
        where: object | None = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.expected, self.got, self.where, self.hint = what, expected, got, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        text = self.what
        if self.expected is not None:
            text += f": expected {self.expected}"
        if self.got is not None:
            text += f"{',' if self.expected is not None else ':'} got {self.got}"
        if self.where is not None:
            text += f" [{self.where}]"
        if self.hint:
            text += f". {self.hint}"
        return " ".join(text.split())

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword-only arguments do not survive the default pickling, and errors cross process borders here.
        return _rebuild, (type(self), self.what, self.expected, self.got, self.where, self.hint)


def _rebuild(
    kind: type[T4SAError], what: str, expected: object, got: object, where: object, hint: str | None
) -> T4SAError:
    return kind(what, expected=expected, got=got, where=where, hint=hint)


# Input: what the official site (or the user) gave.
class InputMissing(T4SAError):
    """A file that the work needs is not there."""


class ArchiveError(T4SAError):
    """A tar archive or one of its members is not what it should be."""


class TruncatedArchive(ArchiveError):
    """A tar archive ends before its end mark."""


class BadHeader(ArchiveError):
    """512 bytes where a tar header should stand are none."""


class UnsafeMember(ArchiveError):
    """A member with an absolute path, a `..`, or one that is a link or a device."""


class BadKey(ArchiveError):
    """A member or a line whose name is not `<tweet id>-<1..4>`, or another data set's form."""


class DuplicateMember(ArchiveError):
    """Two members of an archive bear the same key."""


class TableError(T4SAError):
    """A TSV, CSV or split list is not what it should be."""


class MissingColumn(TableError):
    """A table's header lacks a column."""


class MalformedRow(TableError):
    """A row does not parse: wrong number of fields, an id that is no integer, a probability that is none."""


class ConflictingRows(TableError):
    """Two rows of the same key say different things."""


class UnknownLabel(TableError):
    """A label that is not 0, 1 or 2 (in the Twitter Testing Dataset: 0 or 1)."""


class ClassAbsent(TableError):
    """Training data without a text of some class, or with too few for every fold."""


class TooManyBadLines(TableError):
    """More lines of raw tweets are no JSON, or more files cut, than the share that may be."""


class VectorsError(TableError):
    """A file of word vectors that does not parse, or has none that are needed."""


class SourceChanged(T4SAError):
    """An input changed between two passes of the same build."""


# Download.
class UnknownPackage(T4SAError):
    """A package name that the catalog does not have."""


class CredentialsError(T4SAError):
    """User name and password are missing, refused, or would go where they must not."""


class CredentialsMissing(CredentialsError):
    """The site asks for user name and password, and no source has them."""


class CredentialsRefused(CredentialsError):
    """The site does not take the user name and password, or forbids the file to them."""


class CredentialsInURL(CredentialsError):
    """A URL with a user name or a password in it."""


class InsecureTransport(CredentialsError):
    """A password would go over plain http, or from https to http."""


class NetrcError(CredentialsError):
    """A netrc file that others may read, or that does not parse."""


class DownloadError(T4SAError):
    """A file did not come, or what came is not the file."""


class ServerFault(DownloadError):
    """The site failed again and again: errors, cuts, stalls, answers that contradict each other."""


class NotOnServer(DownloadError):
    """The site has no such file."""


class WrongContent(DownloadError):
    """What the site sent is not a file of this kind (a login page, compressed bytes, another format)."""


class RecordedDiffers(DownloadError):
    """A file whose sha256 is not the one that was recorded when it came first."""


class FetchIncomplete(DownloadError):
    """More images than may be failed in passing (no name, no answer, 429, 5xx): another run tries them again."""


# Images.
class BadImage(T4SAError):
    """Bytes that do not decode to a picture within the limits; `reason` is the ledger's constant."""

    def __init__(self, what: str, *, reason: str = "undecodable", **where: object) -> None:
        super().__init__(what, **where)  # type: ignore[arg-type]
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_image, (self.what, self.reason, self.expected, self.got, self.where, self.hint)


def _rebuild_image(what: str, reason: str, expected: object, got: object, where: object, hint: str | None) -> BadImage:
    return BadImage(what, reason=reason, expected=expected, got=got, where=where, hint=hint)


# Output and machine.
class OutputError(T4SAError):
    """The output folder cannot be used."""


class ForeignFiles(OutputError):
    """The output folder holds files that no manifest of ours names."""


class OutputLocked(OutputError):
    """Another process is building into the same folder."""


class DiskSpaceError(OutputError):
    """Less free disk than the work needs, or the disk ran full."""


class WorkerDied(T4SAError):
    """A worker process ended without a word (killed, or out of memory)."""


class ClusterError(T4SAError):
    """The cluster that work should run on does not answer, or cannot take it."""


class StoreError(T4SAError):
    """An object store does not take or give what it should."""


class StageNotDone(T4SAError):
    """A stage of a build was to be taken as it stands, and it does not stand."""


class StrictFailure(T4SAError):
    """`--strict`: the build differs from what was published."""


class LedgerFaulty(T4SAError):
    """A ledger that does not add up: a candidate without a fate or with two, counts that are not those of the rows."""


class UnknownCandidate(T4SAError):
    """A tweet id or image key that a ledger does not have."""


# Releases and configs.
class UnknownConfig(T4SAError):
    """A config, split or format name that does not exist."""


class ConfigUnavailable(T4SAError):
    """A config that exists but is not in this release, or cannot be built from these inputs."""


class NoRows(T4SAError):
    """Filters or a slice leave no row where at least one is needed."""


class ReleaseError(T4SAError):
    """A release folder is not what its manifest says."""


class ReleaseNotFound(ReleaseError):
    """No release where one was looked for."""


class ManifestError(ReleaseError):
    """A manifest that is no JSON, of an unknown version, or incomplete."""


class ShardError(ReleaseError):
    """A shard whose structure is wrong (member order, keys, page layout)."""


class ChecksumMismatch(ReleaseError):
    """Bytes whose sha256 is not the recorded one."""


class RemovalsUnclear(ReleaseError):
    """Far more samples differ from the current release than were removed: it is another selection of the data."""


# The loader.
class BadOption(T4SAError, ValueError):
    """An argument of the loader that makes no sense, or not with the others."""


class UnmatchedLabels(T4SAError):
    """Labels of another source that leave samples without one."""


class StateMismatch(T4SAError):
    """A state that does not belong to this loader: another release, plan, seed or batch size."""


class ShardedTwice(T4SAError):
    """A framework would share out samples that the loader has shared out already: some would be seen twice or never."""


class UnseededTransform(T4SAError):
    """A transform that draws from a global generator in a thread: no run could be repeated."""


class LoaderStalled(T4SAError):
    """A batch did not come within the time limit."""


# The Hub.
class HubError(T4SAError):
    """The Hub did not give what was asked for."""


class HubAccessError(HubError):
    """The repository is there, but not for this user: not logged in, a bad token, or no access granted."""


class NotPublished(HubError):
    """There is no such repository (or it is private), and no release on this machine either."""


class UnknownRevision(HubError):
    """The repository has no such branch, tag or commit."""


class ReleaseWithdrawn(HubError):
    """The release was withdrawn; `successor` is the tag that takes its place, or None."""

    def __init__(self, what: str, *, successor: str | None = None, **where: object) -> None:
        super().__init__(what, **where)  # type: ignore[arg-type]
        self.successor = successor

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_withdrawn, (self.what, self.successor, self.expected, self.got, self.where, self.hint)


def _rebuild_withdrawn(
    what: str, successor: str | None, expected: object, got: object, where: object, hint: str | None
) -> ReleaseWithdrawn:
    return ReleaseWithdrawn(what, successor=successor, expected=expected, got=got, where=where, hint=hint)


class HubUnreachable(HubError):
    """No connection to the Hub, or offline mode, and nothing of it in the cache."""


class HubConflict(HubError):
    """Somebody else changed the repository at the same time."""


class HubRefused(HubError):
    """The Hub does not take a request as it is (a card that is not valid, an unknown user, a quota)."""


class OpenDoor(HubError):
    """A repository that everybody can read without asking, where a gate must be."""


class VersionTaken(HubError):
    """A version that is published with other bytes, withdrawn, or lower than the current one: tags never move."""


class TakedownRefused(HubError):
    """A takedown that cannot be done (a DOI, a format that is not here, another list begun), or left something."""


class RehearsalFailed(HubError):
    """A step of a rehearsal on the Hub was carried out, and what stands there then is not what it should be."""


class UnknownRequest(HubError):
    """No access request of that user, or none in that state."""


# Publishing.
class RightsError(T4SAError):
    """`rights.toml` is missing, incomplete, or does not cover what the release holds."""


class FormError(T4SAError):
    """A form of the gate that lacks a part, or has one that the Hub does not know."""


class ModelFolderError(T4SAError):
    """A model folder whose `model.json` or files are not what they should be."""


class CheckFailed(ReleaseError):
    """A release with faults, where only a whole one can be used."""


class ScreenHit(T4SAError):
    """The safety screen found images that must not be published; their keys are listed, not their bytes."""


class MissingDependency(T4SAError, ImportError):
    """An optional package is needed; the hint is the line that installs it."""
