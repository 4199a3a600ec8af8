"""Made-up preferences that any sound reward model learns: 'yes' is liked and 'no' is not."""

import json
from pathlib import Path


def write_pairs(path: Path, num_pairs: int, *, offset: int = 0) -> Path:
    """`num_pairs` rows with prompts that no other `offset` shares."""
    rows = (
        {
            "prompt": [{"role": "user", "content": f"Is {number} fine?"}],
            "chosen": f"yes yes {number} " + "yes " * (number % 3),
            "rejected": f"no no {number} " + "no " * (number % 5),
        }
        for number in range(offset, offset + num_pairs)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
