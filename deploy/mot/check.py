"""MOTA, IDF1 and identity switches of RESULTS/*.txt beside DATA/*/gt/gt.txt: check.py DATA RESULTS.

Of the truth, only people who are to be judged count: class 1 with the flag set, as the benchmark does.
"""

import sys
from pathlib import Path

import motmetrics as mm

IOU_MIN = 0.5
MEASURES = ["num_frames", "mota", "idf1", "num_switches", "num_false_positives", "num_misses", "num_objects"]


def main() -> int:
    data, results = map(Path, sys.argv[1:])
    judged = {}
    for result in sorted(results.glob("*.txt")):
        truth = mm.io.loadtxt(str(data / result.stem / "gt/gt.txt"), fmt="mot16", min_confidence=1)
        truth = truth[truth["ClassId"] == 1]
        tracks = mm.io.loadtxt(str(result), fmt="mot15-2D")
        judged[result.stem] = mm.utils.compare_to_groundtruth(truth, tracks, "iou", distth=1 - IOU_MIN)
    if not judged:
        print(f"no results in {results}", file=sys.stderr)
        return 66
    host = mm.metrics.create()
    summary = host.compute_many(judged.values(), names=judged.keys(), metrics=MEASURES, generate_overall=True)
    print(mm.io.render_summary(summary, formatters=host.formatters))
    return 0


if __name__ == "__main__":
    sys.exit(main())
