"""Train: ``python scripts/train.py [overrides]``. Without arguments it is the demo."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from expert_iteration.launch import main

if __name__ == "__main__":
    main()
