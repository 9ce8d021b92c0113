"""What is seen of a run while it goes on.

log.py       the numbers: progress bar, JSON lines, TensorBoard
prompts.py   what pictures are wanted, in kohya's syntax
preview.py   the pictures, and how far the student is from the teacher
sheet.py     how they are drawn
"""

from .log import Log
from .preview import Preview

__all__ = ["Log", "Preview"]
