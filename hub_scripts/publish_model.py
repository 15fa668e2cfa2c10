"""Publish a model folder as a model repository, and bring one back, pinned to a revision.

Nothing is remembered between runs: killed at any moment, the same call goes on; after the last step it does nothing.
All of a model is one commit, so a reader of main sees one model or the other; a tag never moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hub_scripts.client import Hub, RemoteFile, again, explain
from hub_scripts.model_card import NO_LICENSE, model_card, read_evidence
from hub_scripts.model_folder import MODEL_JSON, ModelFolder, check_file, git_blob, parse_description, read_model
from t4sa_data.errors import (
    BadOption,
    ChecksumMismatch,
    ForeignFiles,
    HubRefused,
    HubUnreachable,
    NotPublished,
    T4SAError,
    UnknownRevision,
    VersionTaken,
)
from t4sa_data.releases_file import is_tag, order_of

Say = Callable[[str], object]
README = "README.md"
_ATTRIBUTES = ".gitattributes"
_KIND = "model"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A model repository as it stands after the run."""

    repo_id: str
    tag: str
    commit: str
    """That the tag stands for."""
    private: bool


@dataclass(frozen=True, kw_only=True)
class _Standing:
    """What stands at a model's address."""

    is_open: bool
    """Public, and no gate."""
    private: bool
    tags: Mapping[str, str]
    branches: Mapping[str, str]


def publish_model(
    directory: Path | str,
    *,
    namespace: str,
    name: str | None = None,
    version: str = "1.0.0",
    license_id: str | None = None,
    run: Path | str | None = None,
    public: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
    say: Say = lambda _line: None,
) -> PublishedModel:
    """Publish a model folder to NAMESPACE/NAME: created private, one commit, verified by sha256, then tagged.

    Args:
        directory: with `model.json`.
        namespace: account or organisation on the Hub.
        name: of the repository; None: the paper's name for the system, else `t4sa-ARCHITECTURE`.
        version: X.Y.Z of the model; its tag `vX.Y.Z` is never moved.
        license_id: of the weights, one of the Hub's; None: the card says `unknown`.
        run: folder of the training, for digests and metrics; None: an evaluation beside the model, if there is one.
        public: make the repository public at the end, all its tags; needs `license_id`.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: None: the client's own way (`HF_TOKEN`, `hf auth login`).
        say: gets a line now and then.

    Raises:
        InputMissing, ModelFolderError, ChecksumMismatch: the folder is no whole model, or what arrived is another.
        ForeignFiles: the folder, or the repository, holds something else.
        BadOption: a name, version, licence or run that does not fit.
        VersionTaken: the version is published with other bytes, or lower than another.
        HubAccessError, HubConflict, HubRefused, HubUnreachable: the Hub does not do it.
    """
    tag = f"v{version}"
    if not is_tag(tag):
        raise BadOption("no version", expected="X.Y.Z", got=version)
    _check_license(license_id, public=public)
    model = read_model(Path(directory))
    evidence = read_evidence(model, Path(run) if run is not None else None)
    repo_id = f"{namespace}/{_checked_name(name or default_name(model.description))}"
    card = model_card(model, evidence, repo_id=repo_id, tag=tag, license_id=license_id)
    say(f"checked: {len(model.files) + 1} files, {sum(model.sizes.values()):,} bytes")
    if evidence.results is None:
        say("note: no evaluation, so the card has no metrics (examples/evaluate.py makes one; then --run, or DIR)")
    hub = Hub(namespace=namespace, endpoint=endpoint, token=token)
    again(lambda: _validate(hub, card, repo_id), say)
    small = {MODEL_JSON: model.json, README: card.encode()}
    return again(lambda: _publish(hub, repo_id, tag, model, small, public=public, say=say), say)


def default_name(description: Mapping[str, Any]) -> str:
    """Name of a model's repository.

    Raises:
        BadOption: a network of Caffe's of which nothing is known.

    >>> default_name({"architecture": "caffe", "source": {"system": "VGG-T4SA FT-F"}})
    'vgg-t4sa-ft-f'
    >>> default_name({"architecture": "vgg19", "source": {}})
    't4sa-vgg19'
    """
    system = description["source"].get("system")
    if isinstance(system, str) and (slug := re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-")):
        return slug
    if description["architecture"] == "caffe":
        raise BadOption("a network of Caffe's has no name of its own", hint="Give --name.")
    return f"t4sa-{description['architecture']}"


def _checked_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", name) or "--" in name or ".." in name:
        raise BadOption("no name of a repository", expected="letters, digits, - _ . between them", got=name)
    return name


def _check_license(license_id: str | None, *, public: bool) -> None:
    if license_id is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license_id):
        raise BadOption("no id of a licence", expected="one of the Hub's, such as cc-by-nc-4.0", got=license_id)
    if public and license_id in (None, NO_LICENSE):
        raise BadOption(
            "a public model needs a licence",
            expected="--license ID",
            hint="What is not settled for weights learned from tweets: docs/how-to/publish-a-model.md.",
        )


def _validate(hub: Hub, card: str, repo_id: str) -> None:
    """Raises HubRefused where the Hub's own validation finds a fault in the card."""
    from huggingface_hub import ModelCard, constants

    if hub.endpoint not in (None, constants.ENDPOINT):
        return  # the validation knows no other; the commit validates the card there all the same
    with explain(repo_id, kind=_KIND):
        try:
            ModelCard(card).validate()
        except ValueError as error:
            raise HubRefused("the Hub does not take the card", got=str(error)[:200], where=repo_id) from error


def _publish(
    hub: Hub, repo_id: str, tag: str, model: ModelFolder, small: Mapping[str, bytes], *, public: bool, say: Say
) -> PublishedModel:
    """Bring the repository to its end, from wherever it is."""
    now = _created(hub, repo_id, say)
    if now.is_open and not public:
        raise BadOption("the repository is public", where=repo_id, hint="Say --public, or make it private first.")
    commit = now.tags.get(tag)
    if commit is not None:
        if wrong := _differing(model, small, _tree(hub, repo_id, commit)):
            raise VersionTaken(
                "this version is published with other bytes, and a tag never moves",
                got=f"changed: {', '.join(wrong[:3])}",
                where=f"{repo_id}@{tag}",
                hint="Publish a higher --version.",
            )
    else:
        if later := [one for one in now.tags if is_tag(one) and order_of(one) > order_of(tag)]:
            raise VersionTaken(
                "a higher version is published", expected=f"more than {max(later, key=order_of)}", got=tag
            )
        commit = _bring(hub, repo_id, tag, model, small, now.branches["main"], say)
        with explain(repo_id, tag, kind=_KIND):
            hub.api.create_tag(repo_id, tag=tag, tag_message=f"Model {tag}", revision=commit)
        say(f"{repo_id}: tag {tag}")
    if public and now.private:
        with explain(repo_id, kind=_KIND):
            hub.api.update_repo_settings(repo_id, visibility="public")
        say(f"{repo_id}: public")
    return PublishedModel(repo_id=repo_id, tag=tag, commit=commit, private=now.private and not public)


def _standing(hub: Hub, repo_id: str) -> _Standing:
    with explain(repo_id, kind=_KIND):
        info, refs = hub.api.model_info(repo_id), hub.api.list_repo_refs(repo_id)
    return _Standing(
        is_open=not info.private and not info.gated,
        private=bool(info.private),
        tags={ref.name: str(ref.target_commit) for ref in refs.tags},
        branches={ref.name: str(ref.target_commit) for ref in refs.branches},
    )


def _created(hub: Hub, repo_id: str, say: Say) -> _Standing:
    """The repository, made private where it was not there."""
    try:
        return _standing(hub, repo_id)
    except NotPublished:
        with explain(repo_id, kind=_KIND):  # there after all (an answer was lost): a conflict, and another look
            hub.api.create_repo(repo_id, private=True)
        say(f"{repo_id}: created, private")
    return _standing(hub, repo_id)


def _tree(hub: Hub, repo_id: str, revision: str) -> dict[str, RemoteFile]:
    from huggingface_hub import RepoFile

    with explain(repo_id, revision, kind=_KIND):
        return {
            one.path: RemoteFile(bytes=one.size, sha256=one.lfs.sha256 if one.lfs else None, blob=one.blob_id)
            for one in hub.api.list_repo_tree(repo_id, recursive=True, revision=revision)
            if isinstance(one, RepoFile)
        }


def _differing(model: ModelFolder, small: Mapping[str, bytes], tree: Mapping[str, RemoteFile]) -> list[str]:
    """Files that are missing, other, or beyond: by sha256, or git's sha1 where git keeps the file itself."""
    wrong = [path for path in tree if path not in (_ATTRIBUTES, *small, *model.files)]
    for path, data in small.items():
        if path not in tree or tree[path].blob != git_blob(data):
            wrong.append(path)
    for path, digest in model.files.items():
        remote = tree.get(path)
        if remote is not None and remote.sha256 is None and remote.bytes == model.sizes[path]:
            found = remote.blob == git_blob((model.folder / path).read_bytes())
        else:
            found = remote is not None and (remote.bytes, remote.sha256) == (model.sizes[path], digest)
        if not found:
            wrong.append(path)
    return sorted(wrong)


def _bring(
    hub: Hub, repo_id: str, tag: str, model: ModelFolder, small: Mapping[str, bytes], head: str, say: Say
) -> str:
    """Make main the model, in one commit; the commit, verified."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    tree = _tree(hub, repo_id, head)
    if not _differing(model, small, tree):
        return head  # an earlier run ended before the tag
    beyond = [path for path in tree if path not in (_ATTRIBUTES, *small, *model.files)]
    foreign = [path for path in beyond if MODEL_JSON not in tree or not path.endswith((".safetensors", ".prototxt"))]
    if foreign:
        raise ForeignFiles(
            "the repository holds files that are of no model of ours",
            got=foreign[0],
            where=repo_id,
            hint="Give another --name, or delete them there.",
        )
    operations: list[Any] = [CommitOperationDelete(path_in_repo=path) for path in beyond]
    operations += [CommitOperationAdd(path, str(model.folder / path)) for path in model.files]
    operations += [CommitOperationAdd(path, data) for path, data in small.items()]
    say(f"{repo_id}: uploading")
    with _transfer(repo_id, "main"):
        done = hub.api.create_commit(repo_id, operations, commit_message=f"Model {tag}", parent_commit=head)
    commit = str(done.oid)
    if wrong := _differing(model, small, _tree(hub, repo_id, commit)):
        raise ChecksumMismatch(
            "what the Hub holds is not what was sent",
            got=f"other: {', '.join(wrong[:3])}",
            where=f"{repo_id}@{commit}",
            hint="Nothing was tagged. Did a file change meanwhile? Run the same command again.",
        )
    say(f"{repo_id}: sha256 of {len(model.files) + len(small)} files verified")
    return commit


@contextmanager
def _transfer(repo_id: str, revision: str) -> Iterator[None]:
    """As `explain`, with what a transfer of bytes raises besides."""
    try:
        with explain(repo_id, revision, kind=_KIND):
            yield
    except T4SAError:
        raise
    except (RuntimeError, OSError) as error:
        raise HubUnreachable(
            "the transfer broke off",
            got=type(error).__name__,
            where=f"hf://{repo_id}@{revision}",
            hint="Run the same command again: it goes on where it was.",
        ) from error


def fetch_model(
    repo_id: str, revision: str, folder: Path | str, *, endpoint: str | None = None, token: str | None = None
) -> Path:
    """Bring a model to a folder, pinned: `model.json` and exactly the files that it names, each checked.

    Args:
        repo_id: NAMESPACE/NAME.
        revision: a tag, or a commit's 40 hexadecimal digits; a branch moves, and is refused.
        folder: to make; whole or absent, whatever was killed.
        endpoint: None: `$HF_ENDPOINT`, else the public Hub.
        token: None: the client's own way.

    Returns:
        `folder`, for `examples/predict.py --model`.

    Raises:
        BadOption: a branch, or anything else that moves.
        ForeignFiles: the folder is there, and not empty.
        UnknownRevision, NotPublished, HubAccessError, HubUnreachable: the Hub does not give it.
        ModelFolderError, ChecksumMismatch: what came is no whole model.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ForeignFiles("the folder is there already", where=folder, hint="Give a new one.")
    hub = Hub(namespace=repo_id.partition("/")[0], endpoint=endpoint, token=token)
    commit = _pinned(hub, repo_id, revision)
    tree = _tree(hub, repo_id, commit)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as made:
        whole = Path(made) / "model"
        whole.mkdir()
        data = _download(hub, repo_id, commit, MODEL_JSON, Path(made)).read_bytes()
        if MODEL_JSON not in tree or tree[MODEL_JSON].blob != git_blob(data):
            raise ChecksumMismatch("what came is not what the commit holds", where=f"{repo_id}@{commit}: {MODEL_JSON}")
        description, _ = parse_description(data, f"{repo_id}@{commit}: {MODEL_JSON}")
        for name, digest in description["files"].items():
            came = _download(hub, repo_id, commit, name, Path(made))
            check_file(came, digest)
            came.replace(whole / name)
        (whole / MODEL_JSON).write_bytes(data)
        if folder.exists():
            folder.rmdir()
        whole.rename(folder)
    return folder


def _pinned(hub: Hub, repo_id: str, revision: str) -> str:
    """The commit that a tag or a commit's name stands for."""
    if _COMMIT.fullmatch(revision):
        return revision
    now = _standing(hub, repo_id)
    if revision in now.tags:
        return now.tags[revision]
    if revision in now.branches or revision.startswith("refs/"):
        hint = f"There is {max(filter(is_tag, now.tags), key=order_of, default='no tag')}."
        raise BadOption("a branch moves", expected="a tag, or a commit's 40 hex digits", got=revision, hint=hint)
    raise UnknownRevision(
        "the repository has no such tag", expected="a tag, or a commit's 40 hex digits", got=revision, where=repo_id
    )


def _download(hub: Hub, repo_id: str, commit: str, name: str, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    with _transfer(repo_id, commit):
        found = hf_hub_download(
            repo_id, name, revision=commit, local_dir=folder / "came", token=hub.token, endpoint=hub.endpoint
        )
    return Path(found)
