#!/usr/bin/env python3
"""Other engines: one network, one thread.

engines.py ENGINE FOLDER INFERENCES prints the processor time of each inference in ms, as JSON. FOLDER is what run.py prepared;
ENGINE is onnxruntime or ncnn, then -f32 or -int8. With a fourth argument `plain` it does just these inferences and prints nothing, for
who counts instructions.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

WARM_UP = 3


def main():
    engine, folder, inferences = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    infer = runner(engine, folder)
    if sys.argv[4:] == ["plain"]:
        for _ in range(inferences):
            infer()
        return
    times = []
    for number in range(WARM_UP + inferences):
        start = time.thread_time_ns()
        infer()
        if number >= WARM_UP:
            times.append((time.thread_time_ns() - start) / 1e6)
    print(json.dumps(times))


def image(shape):
    """The values that engine_time.rs uses, too."""
    count = int(np.prod(shape))
    return (np.arange(count) * 31 % 128).astype(np.float32).reshape(shape)


def runner(engine, out):
    """A function that infers once and returns the heads' outputs."""
    if engine.startswith("onnxruntime"):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        file = out / ("network.onnx" if engine.endswith("f32") else "network-int8.onnx")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        inputs = {"image": image(session.get_inputs()[0].shape)}
        return lambda: session.run(None, inputs)
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.load_param(str(out / f"{engine}.param"))
    net.load_model(str(out / f"{engine}.bin"))
    heads = (out / f"{engine}.heads").read_text().split()
    view = image(json.loads((out / "shape.json").read_text()))[0]

    def infer():
        extractor = net.create_extractor()
        extractor.input("image", ncnn.Mat(view))
        return [np.array(extractor.extract(head)[1]) for head in heads]

    return infer


if __name__ == "__main__":
    main()
