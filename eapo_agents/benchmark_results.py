"""[edge] What benchmarks found, and the file that keeps it until all are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from eapo_agents.records import json_lines, validated
from eapo_agents.whole_files import write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkResult:
    """What one benchmark found.

    Args:
        name, title: of the benchmark.
        status: the harness's: "success", or how it failed.
        samples: rows that were answered.
        error: why it, or the first row of it that did, failed; empty where nothing failed.
        value: the paper's column, as a share; None where nothing was graded.
        metrics: everything the harness measured, by `scorer/metric`.
        log: the harness's own log, which holds every sample.
    """

    name: str
    title: str
    status: str
    samples: int
    error: str = ""
    value: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    log: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """The results of benchmarks that are not all finished: what they are of, then one a line.

    A benchmark of which anything failed is not kept: it is run again.
    """

    path: Path
    results: Mapping[str, BenchmarkResult]

    @classmethod
    def open(cls, path: Path, subject: Mapping[str, object]) -> Kept:
        """Return what a file keeps; the file is made if it is not there.

        Raises:
            ValueError: the file keeps results of something else, or none.
        """
        subject = json.loads(json.dumps(subject))
        rows = json_lines(path) or [subject]
        if rows[0] != subject:
            raise ValueError(
                f"{path} keeps results of another model or settings; delete it to start anew"
            )
        results = [validated(row, BenchmarkResult, path) for row in rows[1:]]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
        return cls(path=path, results={result.name: result for result in results})

    def add(self, result: BenchmarkResult) -> None:
        """Keep a result."""
        if result.status == "success" and not result.error:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(result)) + "\n")
