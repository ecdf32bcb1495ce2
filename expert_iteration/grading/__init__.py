"""Text in, verdict out: extraction, an exact comparison, and math-verify in processes that can be killed."""

from expert_iteration.grading.grader import GRADER_VERSION, Grader, Response
from expert_iteration.grading.shaping import shaped
from expert_iteration.grading.styles import STYLES

__all__ = ["GRADER_VERSION", "STYLES", "Grader", "Response", "shaped"]
