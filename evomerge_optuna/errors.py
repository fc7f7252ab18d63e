"""Every error a user can cause or cure; the command line prints its message as one line."""


class EvomergeError(Exception):
    """Something failed that is not a defect of this program. Exit code 1."""

    exit_code = 1


class UsageError(EvomergeError):
    """The request itself is wrong: an option, a name, a URL. Exit code 2."""

    exit_code = 2


class SpecError(UsageError):
    """A spec or recipe says something that cannot be: a wrong key, type, range, model, data set."""


class IncompleteError(EvomergeError):
    """A checkpoint's tensors are not those of its model: some would be made up or left unused.

    Args:
        place: the checkpoint.
        what: is wrong with it, as "has no tensor NAME".
    """

    def __init__(self, place: str, what: str) -> None:
        super().__init__(f"{place} {what}")
        self.what = what


class StorageError(EvomergeError):
    """The database or the artifact store cannot be reached or used."""


class StudyExistsError(UsageError):
    """A study is to be made under a name that another one has."""


class StudyBusyError(EvomergeError):
    """Other processes work on the study, or one has stopped in the middle of a change to it."""


class StudyChangedError(UsageError):
    """A study is resumed with a spec or with model files that are not those it began with."""


class CandidateError(EvomergeError):
    """A candidate cannot be built or scored; its trial fails and the study goes on."""


class Interrupted(EvomergeError):
    """Somebody stopped the run; the trial that was running is queued again."""

    exit_code = 130


class NotFiniteError(CandidateError):
    """A candidate has a weight or a score that is NaN or infinite: the truth about its recipe."""


class ExportError(EvomergeError):
    """An export was given up; nothing was left at the destination."""
