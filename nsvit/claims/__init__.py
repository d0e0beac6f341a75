"""The paper's claims, and what this run says of each. No torch.

`schema`: the file of claims (`nsvit/paper/claims.yaml`). `evidence`: what there is to test them
on. `rows` and `studies`: the tests. `verdicts`: from p-values to verdicts.
"""

from nsvit.claims.evidence import Evidence, gather
from nsvit.claims.schema import Claim, read_claims
from nsvit.claims.verdicts import (
    CONTRADICTED,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    VERDICTS,
    combine,
    judge_claims,
    next_level,
)

__all__ = [
    "CONTRADICTED",
    "NOT_TESTED",
    "SUPPORTED",
    "UNDECIDED",
    "VERDICTS",
    "Claim",
    "Evidence",
    "combine",
    "gather",
    "judge_claims",
    "next_level",
    "read_claims",
]
