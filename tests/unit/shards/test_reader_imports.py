"""Opening a dataset imports the reader alone: loader processes start fast and stay small."""

from __future__ import annotations

import json
import subprocess
import sys

from harness import ROOT

_IMPORT = "import json, sys; import shards.read.reader; print(json.dumps(sorted(sys.modules)))"


def test_reader_imports_no_writer_and_no_image_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    loaded = json.loads(done.stdout)
    assert "shards.format.manifest" in loaded
    unwanted = ("shards.write", "shards.degradation.recipe", "PIL", "torch", "pipeline", "jobs")
    assert [name for name in loaded if name.startswith(unwanted)] == []
