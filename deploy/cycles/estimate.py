#!/usr/bin/env python3
"""Estimates the cycles that a 64-bit ARM program takes on cores that are not at hand:

    estimate.py [--cpu NAME] [--sysroot FOLDER] [--functions] CORES PROGRAM [ARGUMENT...]

CORES is one of a53, a72 and a76, or several, separated by commas. An argument RUNS is replaced by 1 and by 3, and half of the difference is
told: what one run takes, without what begins and ends the program. Without RUNS it is all of the program. --functions tells where
it is spent, for programs that were not stripped. --cpu is QEMU's name of the processor, `max` without it.

For each basic block: how often it was executed (QEMU's user emulation) times the cycles that it takes. Those of a72 and a76 are
computed by llvm-mca 22, `cortex-a72` and `neoverse-n1` (the core that A76 became in servers), with the width of dispatch that ARM's manuals
give; those of a53 by in_order.py. The same program gives the same figures, however busy the machine is. Caches, memory and mispredicted
branches are not in them: they compare designs, and a board takes longer.
"""

import argparse
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import in_order

COVERED = 0.9995  # part of the instructions whose blocks are looked at; the others count as these on the average
MCA = {"a72": ("cortex-a72", 5), "a76": ("neoverse-n1", 8)}
MCA_ITERATIONS = 100
# What llvm-mca has no model of.
UNKNOWN = ("svc", "hint", "mrs", "msr", "dmb", "ret")


def main():
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        blocks = blocks_of_one_run(arguments, Path(folder))
    total = sum(count * len(opcodes) for (_, opcodes), count in blocks.items())
    covered = most_executed(blocks, total)
    assembly = disassemble([opcodes for (_, opcodes), _ in covered])
    scale = total / sum(count * len(opcodes) for (_, opcodes), count in covered)
    functions = {}
    print(f"instructions {total}")
    for core in arguments.cores:
        block_cycles = [in_order.cycles(block) for block in assembly] if core == "a53" else simulate(assembly, *MCA[core])
        of_function = Counter()
        for ((function, _), count), cycles in zip(covered, block_cycles):
            of_function[function] += count * cycles * scale
        print(f"{core} {of_function.total():.0f}")
        functions[core] = of_function
    if arguments.functions:
        tell_functions(functions)


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--sysroot", default="/usr/aarch64-linux-gnu")
    parser.add_argument("--qemu", default="qemu-aarch64")
    parser.add_argument("--functions", action="store_true")
    parser.add_argument("cores", type=lambda text: text.split(","))
    parser.add_argument("program", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    unknown = [core for core in arguments.cores if core != "a53" and core not in MCA]
    if unknown or not arguments.program:
        parser.error(f"no such core: {', '.join(unknown)}" if unknown else "no program")
    return arguments


def blocks_of_one_run(arguments, folder):
    """How often each block is executed, by its function and its opcodes."""
    plugin = folder / "blocks.so"
    source = Path(__file__).with_name("blocks.c")
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-o", plugin, source], check=True)

    def count(runs):
        out = folder / "blocks"
        program = [runs if argument == "RUNS" else argument for argument in arguments.program]
        qemu = [arguments.qemu, "-L", arguments.sysroot, "-cpu", arguments.cpu, "-plugin", f"{plugin},out={out}"]
        code = subprocess.run(qemu + program, stdout=subprocess.DEVNULL).returncode
        if code != 0:
            sys.exit(f"{program[0]} ended with {code}")
        blocks = Counter()
        for line in out.read_text().splitlines():
            count, function, opcodes = line.split(" ")
            opcodes = tuple(int(opcodes[i : i + 8], 16) for i in range(0, len(opcodes), 8))
            blocks[function, opcodes] += int(count)
        return blocks

    if "RUNS" not in arguments.program:
        return count("")
    one, three = count("1"), count("3")
    return Counter({block: (times - one[block]) / 2 for block, times in three.items() if times > one[block]})


def most_executed(blocks, total):
    """The blocks that make most of the instructions, with how often they are executed."""
    covered, sum_so_far = [], 0
    for block, count in sorted(blocks.items(), key=lambda item: -item[1] * len(item[0][1])):
        covered.append((block, count))
        sum_so_far += count * len(block[1])
        if sum_so_far >= COVERED * total:
            break
    return covered


def disassemble(blocks):
    """The assembly of each block, a line an instruction."""
    opcodes = [opcode for block in blocks for opcode in block]
    text = "\n".join(" ".join(f"0x{byte:02x}" for byte in struct.pack("<I", opcode)) for opcode in opcodes)
    command = ["llvm-mc-22", "-triple=aarch64", "-disassemble", "-mattr=+all"]
    result = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    lines = [line.strip().replace("\t", " ") for line in result.stdout.splitlines()]
    lines = [line for line in lines if line and not line.startswith(".")]
    if len(lines) != len(opcodes):
        sys.exit(f"llvm-mc-22 made {len(lines)} lines of {len(opcodes)} instructions: {result.stderr[:300]}")
    lines = iter(lines)
    return [[next(lines) for _ in block] for block in blocks]


def simulate(assembly, cpu, dispatch):
    """Cycles of each block that runs over and over, by llvm-mca."""
    text = []
    for index, block in enumerate(assembly):
        known = [line for line in block if not line.startswith(UNKNOWN)] or ["nop"]
        text += [f"// LLVM-MCA-BEGIN {index}", *known, f"// LLVM-MCA-END {index}"]
    command = ["llvm-mca-22", "-mtriple=aarch64", f"-mcpu={cpu}", "-mattr=+dotprod", f"-dispatch={dispatch}"]
    command += [f"-iterations={MCA_ITERATIONS}", "-instruction-info=0", "-resource-pressure=0"]
    result = subprocess.run(command, input="\n".join(text) + "\n", capture_output=True, text=True)
    cycles = [int(total) / MCA_ITERATIONS for total in re.findall(r"Total Cycles:\s+(\d+)", result.stdout)]
    if len(cycles) != len(assembly):
        sys.exit(f"llvm-mca-22 estimated {len(cycles)} of {len(assembly)} blocks: {result.stderr[:300]}")
    return cycles


def tell_functions(functions):
    """A line a function: its part of the cycles on each core."""
    first = next(iter(functions.values()))
    names = [name for name, _ in first.most_common()]
    readable = subprocess.run(["llvm-cxxfilt-22"], input="\n".join(names), capture_output=True, text=True, check=True)
    for name, shown in zip(names, readable.stdout.splitlines()):
        parts = [of_function[name] / of_function.total() for of_function in functions.values()]
        if max(parts) >= 0.005:
            print(*(f"{100 * part:5.1f} %" for part in parts), shown)


if __name__ == "__main__":
    main()
