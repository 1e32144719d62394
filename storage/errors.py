"""Every error arborfs raises on purpose, grouped by what the caller can do about it.

    ArborError
      Usage       the call cannot be right: change the call          (exit code 2)
      Missing     something named is not there: name another         (exit code 3)
      State       right call, wrong moment: do what the text says    (exit code 4)
      Busy        someone else holds it: wait, or take it over       (exit code 5)
      Damage      bytes on disk are wrong or cannot be kept          (exit code 6)

Each class also inherits the built-in exception it resembles, so that callers who know only Python catch the
right thing. The first line of a class docstring says what happened; instances carry the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ArborError(Exception):
    """Something arborfs refuses to do, or found to be wrong."""

    exit_code = 1

    def __str__(self) -> str:
        """The text as given: KeyError would show its repr."""
        return str(self.args[0]) if self.args else (self.__doc__ or "").splitlines()[0]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled with its data, for the way from a worker process: classes take other arguments than their text."""
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[ArborError], args: tuple[Any, ...], data: dict[str, Any]) -> ArborError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(data)
    return error


class Usage(ArborError):
    """The call cannot be right, whatever the repository holds."""

    exit_code = 2


class Missing(ArborError):
    """Something that was named is not there."""

    exit_code = 3


class State(ArborError):
    """The call is right, but not in this state."""

    exit_code = 4


class Busy(ArborError):
    """Someone else holds what this call needs."""

    exit_code = 5


class Damage(ArborError):
    """Bytes on the disk are wrong, or cannot be written."""

    exit_code = 6


class InvalidName(Usage, ValueError):
    """A name that cannot be the name of an entry, a sample, a branch or a tag."""


class SchemaMismatch(Usage, ValueError):
    """A sample that does not fit the schema of its dataset."""

    def __init__(self, message: str, *, expected: str = "", found: str = "") -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class InvalidSample(SchemaMismatch):
    """A file that is not a whole, safe sample: truncated, forged, or holding pickled objects."""


class InvalidInput(Usage, ValueError):
    """A file outside of the repository that is not what its name says: damaged, forged, or of a kind not taken."""

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class Unsupported(Usage, ValueError):
    """A value or an operation that arborfs does not store."""


class NotInstalled(Usage, ImportError):
    """A library that this needs is not installed: `extra` names what brings it."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} need libraries that are not installed: `pip install arborfs[{extra}]` brings them")
        self.extra = extra


class NotYet(Usage, NotImplementedError, AttributeError):
    """Something that this version of arborfs cannot do yet; `hasattr` says so, too."""


class NotProvided(Usage, RuntimeError):
    """A plug-in does not do what it was asked for."""


class WrongType(Usage, TypeError):
    """An argument that is of another type than the call takes."""


class WrongKind(Usage, ValueError):
    """A directory where a file was named, or the other way round."""


class NotJSON(WrongType):
    """A value that JSON cannot hold: `key` is that of the POD, `place` says where inside the value, as in `['a'][3]`."""

    def __init__(self, message: str, *, key: Any, place: str) -> None:
        super().__init__(message)
        self.key = key
        self.place = place


class Ambiguous(Usage, ValueError):
    """A revision that more than one commit answers to: `candidates`, 64 hexadecimal digits each."""

    def __init__(self, revision: str, candidates: Sequence[str]) -> None:
        listed = ", ".join(name[:16] for name in candidates[:5]) + (", …" if len(candidates) > 5 else "")
        super().__init__(f"{revision!r} is the beginning of {len(candidates)} commits: {listed}")
        self.revision = revision
        self.candidates = tuple(candidates)


class NotFound(Missing, KeyError):
    """No entry, branch, tag, commit or object of that name."""


class UnknownRevision(NotFound, ValueError):
    """No branch, tag or commit answers to that."""


class TreeNotFound(Missing, FileNotFoundError):
    """No directory is at the path."""


class NotARepository(Missing, RuntimeError):
    """The folder holds no arborfs repository."""


class NotATreant(Missing, FileNotFoundError):
    """The directory is no Treant, or no more."""


class NoTreants(NotATreant):
    """No state file is where one was named."""


class Exists(State, FileExistsError, ValueError):
    """The name is already taken."""


class NameTaken(Exists):
    """An entry that comes has the name of one that is there, or of another one that comes: `path`."""

    def __init__(self, message: str, *, path: tuple[bytes, ...]) -> None:
        super().__init__(message)
        self.path = path


class DatasetExists(Exists, LookupError):
    """There is already something of the dataset's name."""


class RepositoryExists(State, OSError):
    """The folder already holds a repository."""


class NotADirectory(State, NotADirectoryError):
    """A file stands where a directory is needed."""


class IsADirectory(State, IsADirectoryError):
    """A directory stands where a file is needed."""


class NotEmpty(State, OSError):
    """The directory still holds entries."""


class TooFewSamples(State, RuntimeError):
    """There are fewer samples than the call needs: `wanted` and `found` say how many."""

    def __init__(self, message: str, *, wanted: int, found: int) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.found = found


class MultipleTreants(State, ValueError):
    """A directory with several state files: `names` are theirs."""

    def __init__(self, where: str, names: Sequence[str]) -> None:
        super().__init__(
            f"{where} holds {len(names)} state files, {', '.join(names)}: keep the one that is its own, move the others to "
            f"directories of their own"
        )
        self.where = where
        self.names = tuple(names)


class NotMounted(State, RuntimeError):
    """The repository is in no mount on this machine, so no program can use a path in it."""


class WorkerDied(State, RuntimeError):
    """A process that did part of the work has ended before it was done: it was killed, or could not begin."""


class RsyncFailed(State, OSError):
    """rsync did not do all that it was told: `code` is what it ended with."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


class NeedsCopy(State, OSError):
    """The directory means something else at its new place: copy it, and remove the old one."""


class NothingToCommit(State, RuntimeError):
    """No changes are staged on the branch."""


class StagedWork(State, RuntimeError):
    """The branch has staged work that this would drop, or mix with its own changes. `paths` are some of it, where known."""

    def __init__(self, message: str, paths: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.paths = tuple(paths)


class NothingToUndo(State, RuntimeError):
    """There is no operation left that can be taken back."""


class NotMerged(State, RuntimeError):
    """The branch has commits that no other branch or tag holds."""


class MergeConflict(State, ValueError):
    """Both sides changed the same: nothing was merged. `conflicts` says what, with base, ours and theirs of each."""

    def __init__(self, message: str, conflicts: Sequence[Any]) -> None:
        super().__init__(message)
        self.conflicts = tuple(conflicts)


class MergeUnderWay(State, RuntimeError):
    """A merge of the branch is not finished: resolve its conflicts and commit, or abort it."""


class OpenConflicts(MergeUnderWay):
    """Conflicts of the merge that is under way are not resolved yet. `conflicts` says which."""

    def __init__(self, message: str, conflicts: Sequence[Any]) -> None:
        super().__init__(message)
        self.conflicts = tuple(conflicts)


class NoMergeUnderWay(State, RuntimeError):
    """No merge of the branch is under way."""


class ReadOnly(State, PermissionError):
    """Commits, tags and read-only checkouts never change."""


class Closed(State, PermissionError):
    """The checkout or repository has been closed."""


class InBatch(State, PermissionError):
    """Something that cannot be done inside a `with` block of a dataset, whose samples wait for its end."""


class NewerFormat(State, RuntimeError):
    """The repository was written by a newer arborfs."""


class WriterLockHeld(Busy, PermissionError):
    """Another writer checkout holds the branch."""


class BranchInUse(Busy, PermissionError):
    """The branch cannot go: it is the default one, or a writer holds it."""


class Conflict(Busy, RuntimeError):
    """A ref moved while this call was working on it."""

    def __init__(self, ref: str, expected: str, found: str, advice: str = "Try again.") -> None:
        super().__init__(
            f"{ref} moved meanwhile: expected {expected or 'nothing'}, found {found or 'nothing'}. {advice}"
        )
        self.ref = ref
        self.expected = expected
        self.found = found


class CollectorRuns(Busy, RuntimeError):
    """Another process is collecting garbage in this repository, or verifies it."""


class Collected(Busy, RuntimeError):
    """What a call had stored was collected as garbage before the call referred to it: call again."""

    def __init__(self, message: str, *, digest: str = "") -> None:
        super().__init__(message)
        self.digest = digest


class Corrupt(Damage, OSError, RuntimeError):
    """Bytes read back are not the bytes that were stored."""

    def __init__(self, message: str, *, digest: str = "", where: str = "") -> None:
        super().__init__(message)
        self.digest = digest
        self.where = where

    def __str__(self) -> str:
        """The message: OSError would format its arguments."""
        return str(self.args[0])


class DamagedState(Damage, ValueError):
    """A Treant's state file does not say what it should: `where` it is, and `problem`."""

    def __init__(self, problem: str, *, where: str = "") -> None:
        super().__init__(
            f"{where or 'the state file'} cannot be understood: {problem}. Put an earlier version of it in its place "
            f"(`arborfs restore`), or remove it"
        )
        self.problem = problem
        self.where = where


class DamagedMark(Damage, ValueError):
    """What labels a directory or file cannot be read, or is there twice: `where` it is."""

    def __init__(self, problem: str, *, where: str = "") -> None:
        super().__init__(problem)
        self.where = where


class IntegrityFault(Damage, RuntimeError):
    """What is stored is not sound. `problems` says what is wrong, where it lies, and what to do."""

    def __init__(self, problems: Sequence[Any]) -> None:
        first, more = problems[0], len(problems) - 1
        super().__init__(
            f"{first.what} ({first.where}): {first.advice}" + (f"; and {more:,} more problems" if more else "")
        )
        self.problems = tuple(problems)


class StorageFull(Damage, OSError):
    """The disk is full: nothing of this call was kept, everything before it is safe."""


class StorageFailed(Damage, OSError):
    """The disk refused a write or a sync: nothing of this call was acknowledged."""


class PersistentOrderedDictException(ArborError):
    """What PODs and trackers alone refuse, or find to be wrong."""


class DuplicateKeyError(Exists, PersistentOrderedDictException, KeyError):
    """The tracker has that task already: `key`."""

    def __init__(self, message: str, *, key: Any) -> None:
        super().__init__(message)
        self.key = key


class PersistentOrderedDictIntegrityError(Damage, PersistentOrderedDictException, ValueError):
    """A file of a POD holds no value: `where` is its path."""

    def __init__(self, message: str, *, where: str) -> None:
        super().__init__(message)
        self.where = where


class CalledClosedTrackerError(Closed, PersistentOrderedDictException):
    """The POD or tracker has been closed."""
