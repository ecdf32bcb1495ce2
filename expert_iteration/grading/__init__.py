"""Text in, verdict out: extraction, an exact comparison, and math-verify in processes that can be killed."""

from expert_iteration.grading.grader import Grader
from expert_iteration.grading.styles import STYLES

__all__ = ["STYLES", "Grader"]
