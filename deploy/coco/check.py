"""AP50 by source of FOLDER/truth.json and FOLDER/detections.json by pycocotools, beside FOLDER/ours.json.

Usage: check.py FOLDER. Fails where the two differ by more than 0.001.
"""

import json
import sys
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

DIFFERENCE_MAX = 0.001


def ap50(truth: COCO, found: COCO, images: list[int]) -> float:
    judge = COCOeval(truth, found, "bbox")
    judge.params.imgIds = images
    judge.params.iouThrs = np.array([0.5])
    judge.evaluate()
    judge.accumulate()
    # Threshold, recall, class, area, number of detections: all areas, 100 an image.
    precision = judge.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


def main() -> int:
    folder = Path(sys.argv[1])
    truth = COCO(str(folder / "truth.json"))
    found = truth.loadRes(str(folder / "detections.json"))
    ours = json.loads((folder / "ours.json").read_text())["sources"]
    rows = []
    for source, score in ours.items():
        of_source = lambda image: source in ("overall", image["source"])
        images = [image["id"] for image in truth.dataset["images"] if of_source(image)]
        rows.append((source, ap50(truth, found, images), score["ap50"]))
    print(f"\n{'source':16} pycocotools quant-tool")
    for source, theirs, own in rows:
        print(f"{source:16} {theirs:11.4f} {own:10.4f}")
    worst = max(abs(theirs - own) for _, theirs, own in rows)
    print(f"largest difference: {worst:.4f}, at most {DIFFERENCE_MAX} is accepted")
    return int(worst > DIFFERENCE_MAX)


if __name__ == "__main__":
    sys.exit(main())
