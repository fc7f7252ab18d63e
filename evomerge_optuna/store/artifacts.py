"""Where files attached to trials and studies are kept: a folder, or a bucket of an S3 service."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import optuna

from evomerge_optuna.errors import StorageError, UsageError
from evomerge_optuna.explain import one_line
from evomerge_optuna.store.optuna_internals import ARTIFACT
from evomerge_optuna.store.urls import has_password, without_user

if TYPE_CHECKING:
    from evomerge_optuna.store.optuna_internals import ArtifactStore

ARTIFACTS_VARIABLE = "EVOMERGE_ARTIFACTS"
_S3 = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_CONNECT_TIMEOUT = 10  # seconds, as of a database server; boto3 would wait a minute


class Artifacts:
    """An artifact store of Optuna, with a name. Its errors fit on one line.

    Every method raises StorageError where the folder or the service cannot be used.
    """

    def __init__(self, place: str, make: "Callable[[], ArtifactStore]") -> None:
        self._place = place
        self._make = make

    @cached_property
    def _store(self) -> "ArtifactStore":
        """Made when it is first used: Optuna imports boto3 with it, whatever is stored where."""
        return self._make()

    def __str__(self) -> str:
        return self._place

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """The artifact's bytes.

        Raises:
            ArtifactNotFound: there is none of this id.
        """
        with _in_one_line(self._place):
            return self._store.open_reader(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Stores an artifact whole, or nothing of it."""
        try:
            with _in_one_line(self._place):
                self._store.write(artifact_id, content_body)
        except StorageError:
            with suppress(Exception):  # the first error says more
                self._store.remove(artifact_id)
            raise

    def remove(self, artifact_id: str) -> None:
        """Removes an artifact.

        Raises:
            ArtifactNotFound: there is none of this id; S3 does not tell.
        """
        with _in_one_line(self._place):
            self._store.remove(artifact_id)

    def attach(
        self, owner: optuna.Trial | optuna.Study, name: str, content: str | bytes, mimetype: str
    ) -> str:
        """Attaches a file to a running trial or to a study; gives the artifact's id."""
        from optuna.artifacts import upload_artifact

        with (
            _in_one_line("the folder of temporary files (TMPDIR)"),
            tempfile.TemporaryDirectory() as folder,
        ):
            file = Path(folder) / name
            file.write_bytes(content.encode() if isinstance(content, str) else content)
            return upload_artifact(
                artifact_store=self, file_path=str(file), study_or_trial=owner, mimetype=mimetype
            )


def attached(attributes: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """File name and id of each artifact of a trial or study, the latest first.

    Not of those that were deleted in the dashboard, for which get_all_artifact_meta fails.

    Args:
        attributes: its system attributes.
    """
    for key, value in reversed(list(attributes.items())):
        if key.startswith(ARTIFACT):
            with suppress(ValueError, TypeError, KeyError):
                yield json.loads(str(value))["filename"], key.removeprefix(ARTIFACT)


def open_artifacts(default: Path) -> Artifacts:
    """The store that `$EVOMERGE_ARTIFACTS` names, else the folder `default`.

    Raises:
        UsageError: it names something that cannot be one.
        StorageError: the folder cannot be made, or the bucket not be reached.
    """
    place = os.environ.get(ARTIFACTS_VARIABLE) or str(default)
    if place.startswith(_S3):
        return _open_bucket(place.removeprefix(_S3).removesuffix("/"))
    if has_password(place):
        raise UsageError(f"{ARTIFACTS_VARIABLE} is neither a folder nor s3://BUCKET; write one")
    folder = Path(place).expanduser().absolute()
    with _in_one_line(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)

    def make() -> "ArtifactStore":
        from optuna.artifacts import FileSystemArtifactStore

        return FileSystemArtifactStore(folder)

    return Artifacts(str(folder), make)


def _open_bucket(bucket: str) -> Artifacts:
    if "/" in bucket:
        raise UsageError(
            f"{ARTIFACTS_VARIABLE}: a folder within a bucket cannot be named; write s3://BUCKET, "
            "with a bucket for artifacts alone"
        )
    if not _BUCKET.fullmatch(bucket):  # not shown: it might hold a secret, in the wrong place
        raise UsageError(f"{ARTIFACTS_VARIABLE}: that is no name of a bucket; write s3://BUCKET")
    from optuna.artifacts import Boto3ArtifactStore

    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise StorageError(
            f"{_S3}{bucket} needs boto3: pip install 'evomerge-optuna[s3]'"
        ) from error
    with _in_one_line(_S3 + bucket):
        try:
            # A session of its own reads the variables as they are now.
            client = boto3.Session().client("s3", config=Config(connect_timeout=_CONNECT_TIMEOUT))
        except ValueError as error:
            raise StorageError(
                f"{_S3}{bucket}: AWS_ENDPOINT_URL is no URL; write http://HOST:PORT"
            ) from error
        client.head_bucket(Bucket=bucket)
    return Artifacts(_S3 + bucket, lambda: Boto3ArtifactStore(bucket, client))


@contextmanager
def _in_one_line(place: str) -> Iterator[None]:
    """Turns what the operating system or boto3 raises into one line.

    Raises:
        StorageError: what is wrong, where, and the cure.
    """
    try:
        yield
    except _errors_of_boto3() as error:  # first, for some of them are OSErrors, too
        raise StorageError(f"artifacts in {place}: {_reason_of_boto3(error)}") from error
    except OSError as error:
        raise StorageError(f"artifacts in {error.filename or place}: {_reason(error)}") from error


def _reason(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left; free some"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{error.strerror}; may this user write there?"
    return error.strerror or str(error)


def _errors_of_boto3() -> tuple[type[Exception], ...]:
    """None where it is not installed."""
    try:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return ()
    return (Boto3Error, BotoCoreError, ClientError)


def _reason_of_boto3(error: Exception) -> str:
    from botocore import exceptions

    match error:
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        # Their text has the whole URL of the endpoint.
        case exceptions.HTTPClientError() | exceptions.ConnectionError():
            return (
                f"no answer ({type(error).__name__}); is AWS_ENDPOINT_URL right, and the server "
                "running?"
            )
        case exceptions.ClientError(response={"Error": {"Code": "404" | "NoSuchBucket"}}):
            return f"there is no such bucket; create it, or correct {ARTIFACTS_VARIABLE}"
        case exceptions.ClientError(response={"Error": {"Code": "403" | "AccessDenied"}}):
            return "access denied; may these credentials read, write and delete there?"
        case exceptions.ClientError(response={"Error": {"Code": code, "Message": message}}):
            return without_user(f"{one_line(message)} ({code})")
    return without_user(one_line(error))
