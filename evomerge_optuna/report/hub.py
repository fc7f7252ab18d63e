"""One repository of models on the Hugging Face hub: looked at, made, filled."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge_optuna.errors import EvomergeError, UsageError
from evomerge_optuna.explain import first_line, kind_and_message, one_line

Say = Callable[[str], None]

CARD = "README.md"
_OF_THE_HUB = ".gitattributes"  # which it makes itself
_SECONDS = 20.0  # for the first answer

_TOKENS = "https://huggingface.co/settings/tokens"
_CURES = {  # by the status of the hub's answer
    401: f"the hub does not know this token; make one that may write at {_TOKENS}",
    402: "the hub wants a payment for this",
    403: f"this token may not write there; is the namespace yours, and does {_TOKENS} show it "
    "with the role write?",
    404: "there is no such user or organization, or this token may not see it",
    409: "somebody else is changing it; try again",
    413: "a file is larger than the hub takes",
    429: "the hub wants fewer requests; wait, and run the command again",
}

# What libraries call the errors of a network; which library it is changes with huggingface_hub.
_OF_NETWORKS = ("TransportError", "ConnectionError", "Timeout", "TimeoutError")


@dataclass(frozen=True)
class Contents:
    """What a repository has.

    Attributes:
        files: their hashes by their paths, of large ones SHA-256, of others git's.
    """

    is_private: bool
    files: Mapping[str, str]


class Repository:
    """A repository by its name, with the token of the environment.

    Args:
        name: USER/NAME.
        say: is given what takes time.

    Raises:
        UsageError: the name cannot be one, or there is no token.
    """

    def __init__(self, name: str, say: Say) -> None:
        from huggingface_hub import HfApi, get_token
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(name)
        except HFValidationError as error:
            raise _bad_name(name) from error
        if name.count("/") != 1:
            raise _bad_name(name)
        token = get_token()
        if not token:
            raise UsageError(
                f"there is no token for the hub; make one that may write at {_TOKENS}, and put it "
                "into HF_TOKEN"
            )
        self.name = name
        self._say, self._token = say, token
        self._api = HfApi(token=token)

    @property
    def address(self) -> str:
        return f"{self._api.endpoint}/{self.name}"

    def look(self) -> Contents | None:
        """What is there; None: there is no such repository.

        Raises:
            EvomergeError: the hub does not answer, or refuses the token.
        """
        from huggingface_hub.errors import RepositoryNotFoundError

        found = None
        with self._explained():
            with suppress(RepositoryNotFoundError):  # so it also calls what it does not show
                found = self._api.model_info(self.name, files_metadata=True, timeout=_SECONDS)
            token = self._api.whoami().get("auth", {}).get("accessToken", {})
        if token.get("role") == "read":
            raise UsageError(f"{self.name}: {_CURES[403]}")
        if found is None:
            return None
        return Contents(
            is_private=bool(found.private),
            files={
                file.rfilename: file.lfs.sha256 if file.lfs else str(file.blob_id)
                for file in found.siblings or ()
            },
        )

    def fill(self, folder: Path, *, public: bool, message: str) -> None:
        """Makes the repository unless it is there, and uploads all files of a folder.

        What an upload that was cut short has sent is not sent again.

        Raises:
            EvomergeError: the hub does not answer, or refuses something.
        """
        with self._explained():
            self._api.create_repo(self.name, private=not public, exist_ok=True)
            self._api.upload_folder(repo_id=self.name, folder_path=folder, commit_message=message)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Says what the hub's library waits for; gives one line for whatever it raises."""
        try:
            with _heard(self._hide_and_say):
                yield
        except Exception as error:  # it has several dozen kinds, and those of three libraries
            raise EvomergeError(self._hidden(self._explanation(error))) from None

    def _explanation(self, error: Exception) -> str:
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(error, OfflineModeIsEnabled):
            return f"{self.name}: HF_HUB_OFFLINE keeps the hub away; unset it"
        answer = getattr(error, "response", None)
        status = getattr(answer, "status_code", None)
        said = one_line(getattr(error, "server_message", None) or "")
        told = f" (it says: {said})" if said else ""
        if status in _CURES:
            return f"{self.name}: {_CURES[status]}{told}"
        again = "run the same command again: what was sent is not sent twice"
        if status is not None and status >= 500:
            return f"{self.name}: the hub failed (status {status}){told}; {again}"
        if status is not None or isinstance(error, ValueError):
            return f"{self.name}: the hub refused it{told or f': {first_line(error)}'}"
        why = kind_and_message(error)
        if not any(kind.__name__ in _OF_NETWORKS for kind in type(error).__mro__):
            return f"{self.name}: the upload failed: {why}"
        return f"{self._api.endpoint} cannot be reached ({why}); is the network there? {again}"

    def _hide_and_say(self, line: str) -> None:
        self._say(self._hidden(line))

    def _hidden(self, text: str) -> str:
        return text.replace(self._token, "[token]")


def differing(folder: Path, contents: Contents) -> list[str]:
    """The files of a repository that are not those of the folder; its card where it is alone.

    Beside files of the folder another card may be of the same model, and scored since.
    """
    files = [path for path in contents.files if path not in (CARD, _OF_THE_HUB)]
    if CARD in contents.files and not files:
        return [CARD]
    return [path for path in files if not _is_same(folder / path, contents.files[path])]


def _is_same(file: Path, digest: str) -> bool:
    if not file.is_file():
        return False
    if len(digest) == 64:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest() == digest
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() == digest


def _bad_name(name: str) -> UsageError:
    return UsageError(
        f"'{one_line(name, 100)}' is no repository; write USER/NAME, of letters, digits, '-', '_' "
        "and '.'"
    )


@contextmanager
def _heard(say: Say) -> Iterator[None]:
    """Within the block the hub's library says what it waits for, and nothing else does."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            of_upload = record.name.endswith("_upload_pipeline")
            if of_upload or record.levelno >= logging.WARNING:
                say(one_line(record.getMessage()))

    logger: Any = logging.getLogger("huggingface_hub")
    before = logging.root.manager.disable, logger.handlers, logger.level, logger.propagate
    logging.disable(logging.NOTSET)
    logger.handlers, logger.propagate = [Handler()], False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before[0])
        logger.handlers, logger.propagate = before[1], before[3]
        logger.setLevel(before[2])
