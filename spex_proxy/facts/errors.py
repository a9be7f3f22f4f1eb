"""The errors that somebody catches.

    SpexError
    ├── SettingsError        the operator's configuration can't work
    ├── PluginError          a plugin is refused at load, or broke its contract
    ├── NotFound             no such id in the store
    │   └── ClaimLost        ... any more: the job is another worker's, or has ended
    ├── CannotExplain        this exchange can't be explained; the reason is stored
    ├── BadEvidence          masks and values that no engine can fit
    ├── UpstreamError        the model server refused, failed or can't be reached
    │   └── UpstreamBusy     ... and may be asked again later
    ├── TooBroad             a query that would have to read everything; the message says what to add
    ├── BadReply             the server's reply breaks its contract; nothing is guessed
    └── VerificationFailed   stored evidence and stored explanation do not agree

Each message says what happened, where, and what to do. `str(error)` is written
for the person who reads it.
"""


class SpexError(Exception):
    """Root of all errors of our own."""


class SettingsError(SpexError):
    """The configuration can't work; the message names the setting."""


class PluginError(SpexError):
    """A plugin was refused or broke its contract; the message names kind, plugin and cause."""


class NotFound(SpexError):
    """Nothing in the store has the given id."""


class ClaimLost(NotFound):
    """The job is no longer this worker's; whatever it was about to keep is not kept."""


class CannotExplain(SpexError):
    """The exchange can't be explained. Final: the message is stored as the job's reason."""


class BadEvidence(SpexError):
    """Masks or values that can't be fitted (NaN, wrong shape, too few)."""


class TooBroad(SpexError):
    """A query that would have to read everything; the message says what to add."""


class UpstreamError(SpexError):
    """The model server refused or failed a background request."""


class UpstreamBusy(UpstreamError):
    """The model server can't answer now; the same request may be sent again later."""


class BadReply(SpexError):
    """A reply without the fields that were asked for. Silent traps end here."""


class VerificationFailed(SpexError):
    """What is stored does not follow from the evidence that is stored with it."""
