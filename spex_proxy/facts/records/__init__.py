"""What the JSON API says, noun by noun: `web` fills these in, `client` reads them back.

Defined once, so that the server's OpenAPI document and the Python client cannot disagree. The text
below a field is its description in that document (`documented.py`).

Everywhere: times are UTC; durations are seconds; a number that is not finite is null; texts whose
content was erased are null; segments are counted from 1, in the order of the prompt.
"""

from spex_proxy.facts.records.cases import (
    CaseEventRecord,
    CasePage,
    CaseRecord,
    CaseStory,
    QueueRecord,
    ReviewRecord,
)
from spex_proxy.facts.records.exchanges import (
    ExchangePage,
    ExchangeRecord,
    ExchangeRow,
    JobBrief,
    MessageRecord,
)
from spex_proxy.facts.records.explanations import (
    CheckRecord,
    CostRecord,
    EvidenceRecord,
    ExplanationPage,
    ExplanationRecord,
    ExplanationRow,
    FidelityRecord,
    FlagRecord,
    GameEvidence,
    HierarchyRecord,
    InteractionRecord,
    SegmentRecord,
    TargetRecord,
    TermRecord,
    VerificationRecord,
)
from spex_proxy.facts.records.faults import (
    ErrorRecord,
    Fault,
)
from spex_proxy.facts.records.flags import (
    RaisedList,
    RaisedRecord,
)
from spex_proxy.facts.records.jobs import (
    FINAL_STATES,
    JobRecord,
    PriorityName,
)
from spex_proxy.facts.records.queries import (
    AggregateRecord,
    ComparisonRecord,
    EstimateRecord,
    IndexEntry,
    IndexRecord,
    InteractionPage,
    InteractionRow,
    PairRecord,
    ShareCount,
    ShareRecord,
    SharesRecord,
    TogetherRecord,
)
from spex_proxy.facts.records.retests import (
    CoalitionRecord,
    CoalitionTable,
    FoundAgainRecord,
    RetestList,
    RetestRecord,
)

__all__ = [
    "FINAL_STATES",
    "AggregateRecord",
    "CaseEventRecord",
    "CasePage",
    "CaseRecord",
    "CaseStory",
    "CheckRecord",
    "CoalitionRecord",
    "CoalitionTable",
    "ComparisonRecord",
    "CostRecord",
    "ErrorRecord",
    "EstimateRecord",
    "EvidenceRecord",
    "ExchangePage",
    "ExchangeRecord",
    "ExchangeRow",
    "ExplanationPage",
    "ExplanationRecord",
    "ExplanationRow",
    "Fault",
    "FidelityRecord",
    "FlagRecord",
    "FoundAgainRecord",
    "GameEvidence",
    "HierarchyRecord",
    "IndexEntry",
    "IndexRecord",
    "InteractionPage",
    "InteractionRecord",
    "InteractionRow",
    "JobBrief",
    "JobRecord",
    "MessageRecord",
    "PairRecord",
    "PriorityName",
    "QueueRecord",
    "RaisedList",
    "RaisedRecord",
    "RetestList",
    "RetestRecord",
    "ReviewRecord",
    "SegmentRecord",
    "ShareCount",
    "ShareRecord",
    "SharesRecord",
    "TargetRecord",
    "TermRecord",
    "TogetherRecord",
    "VerificationRecord",
]
