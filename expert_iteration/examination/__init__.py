"""An evaluation that stands alone: its answers, what they measure, and how two of them differ."""
