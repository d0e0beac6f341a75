"""From records to numbers with intervals. Fractions, not per cent. No torch.

`proportions`: accuracy, robust accuracy, Wilson intervals. `corruption`: corruption errors and
the AlexNet constants. `bootstrap`: resampling of pictures and seeds. `summary`: all columns of
all runs at once. `robust`: several attacks at once. `paired`: two rows of a table against each
other. `spread`: how much seeds differ. `hypotheses`: McNemar, Holm.
"""

from nsvit.statistics.bootstrap import (
    Estimate,
    bootstrap_interval,
    bootstrap_means,
    percentiles,
    seed_weights,
)
from nsvit.statistics.corruption import (
    ALEXNET_ERRORS,
    corruption_errors,
    mean_corruption_error,
    picture_scores,
)
from nsvit.statistics.hypotheses import holm, mcnemar
from nsvit.statistics.paired import Comparison, compare, compare_with, judge, smallest_effect
from nsvit.statistics.proportions import accuracy, robust_accuracy, wilson_interval
from nsvit.statistics.robust import add_robust
from nsvit.statistics.summary import Resampled, resample, summarise

__all__ = [
    "ALEXNET_ERRORS",
    "Comparison",
    "Estimate",
    "Resampled",
    "accuracy",
    "add_robust",
    "bootstrap_interval",
    "bootstrap_means",
    "compare",
    "compare_with",
    "corruption_errors",
    "holm",
    "judge",
    "mcnemar",
    "mean_corruption_error",
    "percentiles",
    "picture_scores",
    "resample",
    "robust_accuracy",
    "seed_weights",
    "smallest_effect",
    "summarise",
    "wilson_interval",
]
