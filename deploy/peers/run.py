#!/usr/bin/env python3
"""The whole network in our kernels and in other engines, one thread, side by side.

Called by run.sh, which builds and installs what it needs: run.py ENGINE_TIME BUNDLE KEY ONNX OUT [ROUNDS]
ENGINE_TIME is the program quant-tool/examples/engine_time.rs, ONNX the bundle written by `quant-tool onnx --folded`.
Every engine takes its turn in every round, in a process of its own, so that a busy moment of the machine hits all alike.
What is measured is the thread's processor time of each inference. Writes OUT/peers.json, peers.md and peers.svg.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import engines
from engines import image, runner

ROUNDS = 5
INFERENCES = 40


def main():
    program, bundle, key, network, out = sys.argv[1:6]
    rounds = int(sys.argv[6]) if len(sys.argv) > 6 else ROUNDS
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    prepare(Path(network), out)
    programs = {
        "Ternwatch, 2-bit": [program, "ours", bundle, key, str(INFERENCES)],
        "tract, float32": [program, "tract", bundle, key, str(INFERENCES)],
    }
    for name in ("onnxruntime-f32", "onnxruntime-int8", "ncnn-f32", "ncnn-int8"):
        title = name.replace("-f32", ", float32").replace("-int8", ", int8")
        programs[title] = [sys.executable, engines.__file__, name, str(out), str(INFERENCES)]
    times = {title: [] for title in programs}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for title, command in programs.items():
            text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            values = json.loads(text) if text.startswith("[") else map(float, text.split())
            times[title].append(statistics.median(values))
    report(times, out)


def report(times, out):
    """Medians of the rounds' medians, and their range."""
    ours = statistics.median(times["Ternwatch, 2-bit"])
    rows = []
    for title, medians in times.items():
        median = statistics.median(medians)
        rows.append({
            "engine": title,
            "median_ms": round(median, 3),
            "least_ms": round(min(medians), 3),
            "greatest_ms": round(max(medians), 3),
            "times_ours": round(median / ours, 2),
        })
    (out / "peers.json").write_text(json.dumps(rows, indent=1) + "\n")
    lines = ["| engine | ms, median | range of the rounds | x ours |", "|---|---|---|---|"]
    for row in rows:
        lines.append("| {engine} | {median_ms:.2f} | {least_ms:.2f} to {greatest_ms:.2f} | {times_ours:.2f} |".format(**row))
    (out / "peers.md").write_text("\n".join(lines) + "\n")
    (out / "peers.svg").write_text(chart(rows))
    print("\n".join(lines))


def chart(rows):
    """Horizontal bars, one an engine."""
    longest = max(row["greatest_ms"] for row in rows)
    height = 40 * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="760" height="{height}" font-family="sans-serif" font-size="14">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="20" y="26">Processor time of one inference, one thread (ms)</text>',
    ]
    for i, row in enumerate(rows):
        y = 42 + 40 * i
        length = 440 * row["median_ms"] / longest
        colour = "#d62728" if i == 0 else "#7f7f7f"
        parts.append(f'<text x="190" y="{y + 19}" text-anchor="end">{row["engine"]}</text>')
        parts.append(f'<rect x="200" y="{y}" width="{length:.1f}" height="28" fill="{colour}"/>')
        ends = [200 + 440 * row[end] / longest for end in ("least_ms", "greatest_ms")]
        parts.append(f'<path d="M{ends[0]:.1f} {y + 14}H{ends[1]:.1f}" stroke="black"/>')
        parts.append(f'<text x="{max(ends[1], 200 + length) + 8:.1f}" y="{y + 19}">{row["median_ms"]:.2f}</text>')
    return "\n".join(parts + ["</svg>"]) + "\n"


def prepare(network, out):
    """Writes the network in every engine's form, and checks that they compute the same network."""
    model = onnx.load(network)
    onnx.checker.check_model(model, full_check=True)
    (out / "shape.json").write_text(json.dumps(input_shape(model)))
    onnx.save(model, out / "network.onnx")
    quantize_for_onnxruntime(out)
    write_ncnn(model, out / "ncnn-f32", quantized=False)
    write_ncnn(model, out / "ncnn-int8", quantized=True)
    expected = runner("onnxruntime-f32", out)()
    for engine in ("onnxruntime-int8", "ncnn-f32", "ncnn-int8"):
        worst = 0.0
        for own, theirs in zip(expected, runner(engine, out)()):
            theirs = np.asarray(theirs).reshape(own.shape)
            worst = max(worst, float(np.abs(own - theirs).max() / np.abs(own).max()))
        print(f"{engine}: outputs within {100 * worst:.2f} % of the largest", file=sys.stderr)
        if worst > (0.001 if engine.endswith("f32") else 0.5):
            sys.exit(f"{engine} does not compute the same network")


def input_shape(model):
    return [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]


def quantize_for_onnxruntime(out):
    """onnxruntime's own static quantization: int8 weights a channel, uint8 activations."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            model = onnx.load(out / "network.onnx")
            shape = input_shape(model)
            values = np.random.default_rng(1).integers(0, 128, (8, *shape[1:])).astype(np.float32)
            views = [image(shape)] + [v[None] for v in values]
            self.views = iter([{"image": view} for view in views])

        def get_next(self):
            return next(self.views, None)

    quantize_static(
        out / "network.onnx", out / "network-int8.onnx", Reader(),
        quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )


def write_ncnn(model, path, quantized):
    """ncnn's text and binary files. Its quantizer is no part of its wheel; the weights are ternary, so that int8 holds
    them exactly, and activations are 0 to 127, which is its scale 1."""
    graph = model.graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    heads = [o.name for o in graph.output]
    # A convolution and the clip after it are one layer.
    clips = {n.input[0]: n for n in graph.node if n.op_type == "Clip"}
    readers = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Clip" and node.input[0].endswith(".sum") and any(
            n.op_type == "Conv" and n.output[0] == node.input[0] for n in graph.node
        ):
            continue
        nodes.append(node)
        for name in node.input:
            if name and name not in constants:
                readers.setdefault(name, []).append(node)
    lines, blobs = [], set()
    weights = bytearray()

    def add(kind, name, inputs, outputs, *parameters):
        blobs.update(outputs)
        lines.append(" ".join([f"{kind} {name} {len(inputs)} {len(outputs)}", *inputs, *outputs, *parameters]))

    turns = {}

    def take(name):
        """A blob of ncnn has one reader: others get copies of their own."""
        copies = turns.get(name)
        return copies.pop(0) if copies else name

    def publish(name):
        count = len(readers.get(name, []))
        if count > 1:
            copies = [f"{name}_{i}" for i in range(count)]
            add("Split", f"split_{name}", [name], copies)
            turns[name] = copies

    add("Input", "image", [], ["image"])
    publish("image")
    for node in nodes:
        if node.op_type == "Conv":
            attributes = {a.name: list(a.ints) for a in node.attribute}
            weight, bias = (constants[name] for name in node.input[1:3])
            clip = clips.get(node.output[0])
            output = clip.output[0] if clip else node.output[0]
            kernel, stride = attributes["kernel_shape"][0], attributes["strides"][0]
            parameters = [
                f"0={weight.shape[0]}", f"1={kernel}", f"3={stride}", f"4={kernel // 2}", "5=1", f"6={weight.size}",
            ]
            if clip:
                parameters += ["9=3", "-23310=2,0.0,127.0"]
            if quantized:
                stays = output not in heads and all(n.op_type == "Conv" for n in readers.get(output, []))
                parameters.append("8=102" if stays else "8=2")
                steps = np.abs(weight).reshape(weight.shape[0], -1).max(axis=1)
                steps[steps == 0] = 1.0
                trits = np.round(weight / steps[:, None, None, None]).astype(np.int8).tobytes()
                weights += (0x000D4B38).to_bytes(4, "little") + trits + bytes(-len(trits) % 4)
                weights += bias.astype("<f4").tobytes() + (1.0 / steps).astype("<f4").tobytes()
                weights += np.ones(2 if stays else 1, "<f4").tobytes()
            else:
                weights += bytes(4) + weight.astype("<f4").tobytes() + bias.astype("<f4").tobytes()
            add("Convolution", output, [take(node.input[0])], [output], *parameters)
        elif node.op_type == "Resize":
            output = node.output[0]
            add("Interp", output, [take(node.input[0])], [output], "0=1", "1=2.0", "2=2.0")
        elif node.op_type == "Slice":
            output = node.output[0]
            height, width = constants[node.input[2]]
            add("Crop", output, [take(node.input[0])], [output], f"3={width}", f"4={height}", "5=-233")
        elif node.op_type == "Add":
            output = node.output[0]
            add("BinaryOp", output, [take(name) for name in node.input], [output], "0=0")
        elif node.op_type == "Clip":
            output = node.output[0]
            add("Clip", output, [take(node.input[0])], [output], "0=0.0", "1=127.0")
        else:
            sys.exit(f"no form for {node.op_type} in ncnn")
        publish(output)
    text = "\n".join(["7767517", f"{len(lines)} {len(blobs)}", *lines]) + "\n"
    path.with_suffix(".param").write_text(text)
    path.with_suffix(".bin").write_bytes(weights)
    path.with_suffix(".heads").write_text("\n".join(heads))


main()
