#!/usr/bin/env python3
"""Draws target/peers/arm.txt: arm_chart.py ARM_TXT OUT_SVG.

A line there is an engine, a core, instructions and, where they were estimated, cycles of one inference. Bars are cycles, an engine beside
the other for each core; an engine without cycles is left out. A short line is where the target for ours is: the engine's cycles, divided
by how many times fewer ours should take.
"""

import sys
from collections import defaultdict

CORES = {"a53": "Cortex-A53", "a72": "Cortex-A72", "a76": "Cortex-A76"}
TITLES = {
    "ours": "Ternwatch, 2-bit",
    "ncnn-int8": "ncnn, int8",
    "onnxruntime-int8": "onnxruntime, int8",
    "tract-f32": "tract, float32",
}
COLOURS = {"ours": "#d62728", "ncnn-int8": "#4c72b0", "onnxruntime-int8": "#55a868", "tract-f32": "#7f7f7f"}
# How many times fewer cycles ours should take.
TARGETS = {
    "ncnn-int8": {"a53": 1.5, "a72": 2.2, "a76": 1.7},
    "onnxruntime-int8": {"a53": 4, "a72": 4, "a76": 2},
    "tract-f32": {"a72": 6},
}
LEFT, WIDTH, BAR = 150, 470, 20


def main():
    path, out = sys.argv[1:3]
    cycles = defaultdict(dict)
    with open(path) as lines:
        for line in lines:
            engine, core, *counts = line.split()
            if engine in TITLES and len(counts) == 2:
                cycles[core][engine] = float(counts[1]) / 1e6
    missing = [core for core in CORES if "ours" not in cycles[core]]
    if missing:
        sys.exit(f"{path}: no cycles of ours on {', '.join(missing)}: make bench-peers-arm, with llvm 22")
    with open(out, "w") as file:
        file.write(chart(cycles))


def chart(cycles):
    longest = max(value for engines in cycles.values() for value in engines.values())
    parts, y = [], 44
    for core, title in CORES.items():
        engines = cycles[core]
        parts.append(f'<text x="20" y="{y + 14}" font-weight="bold">{title}</text>')
        y += 22
        for engine in (engine for engine in TITLES if engine in engines):
            value = engines[engine]
            length = WIDTH * value / longest
            text = f"{value:.1f}"
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 4}" fill="{COLOURS[engine]}"/>')
            if engine != "ours":
                text += f"   {value / engines['ours']:.1f} times ours"
                wanted = TARGETS[engine].get(core)
                if wanted:
                    text += f", wanted {wanted:g}"
                    x = LEFT + length / wanted
                    parts.append(f'<path d="M{x:.1f} {y - 2}V{y + BAR}" stroke="black" stroke-width="2"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{TITLES[engine]}</text>')
            parts.append(f'<text x="{LEFT + length + 8:.1f}" y="{y + 13}">{text}</text>')
            y += BAR
        x = LEFT + WIDTH * engines["ours"] / longest
        top = y - BAR * sum(engine in engines for engine in TITLES)
        parts.append(f'<path d="M{x:.1f} {top}V{y - 4}" stroke="#d62728" stroke-dasharray="3 3"/>')
        y += 14
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 230}" height="{y}" font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="20" y="26">Estimated million cycles of one inference, one thread. '
        "A black line is where ours should end, the red one where it does.</text>",
    ]
    return "\n".join(head + parts + ["</svg>"]) + "\n"


if __name__ == "__main__":
    main()
