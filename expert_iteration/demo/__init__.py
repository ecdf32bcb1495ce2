"""The embedded default task: endless word problems, and a small base model that can learn them on a CPU.

Read `problems` first. `pupils` wrote the corpus of the base model, `tokenizer` is its alphabet and
``scripts/make_demo_model.py`` made it. Importing this package or `problems` needs the standard
library only.
"""

from pathlib import Path

MODEL_FOLDER: Path = Path(__file__).parent / "model"
"""Hugging Face folder of the base model: 854,144 parameters, deliberately careless (see its README)."""
