"""A model of Cortex-A53: two instructions begin in a cycle, in their order.

Its rules (what may begin beside what, how many cycles an instruction keeps its pipeline, after how many its result is there) are what is commonly
known of this core; none was measured here. Caches, memory and mispredicted branches are not in it.
"""

import re
from dataclasses import dataclass, field

ITERATIONS = 30  # of a block; the second half of them counts

VECTOR_MEMORY = re.compile(r"(ldr|str|ldur|stur|ldp|stp|ldnp|stnp|ld[1234]|st[1234]|ld1r)$")
REGISTER = re.compile(r"\b([vqdshbxw])(\d+)\b")
# These multiply, and their results come a cycle later than those of other vector operations.
SLOW_VECTOR = re.compile(r"[us]?(ml|mull|mlal|adalp|dot|tbl|qdmul)|fm|fadd|mla|cnt")
# They read what they write, and take that operand three cycles later than the others.
LATE_ACCUMULATOR = re.compile(r"[us]?(mlal|adalp|dot)|mla|fmla")
ACCUMULATES = re.compile(r"[us]?(mlal|adalp|dot|addw)|ml[as]|fmla|bsl|ins|[us]?sra")
SETS_FLAGS = {"cmp", "tst", "subs", "adds", "ands"}

MEMORY = {"vector load", "vector store", "load", "store"}
# Kinds that do not begin in one cycle: the first one in the program's order, then the other one.
APART = (
    {(first, second) for first in MEMORY for second in MEMORY}
    | {("vector", second) for second in ("vector", "vector load", "vector store", "move")}
    | {(first, "vector") for first in MEMORY | {"move"}}
    | {("move", "vector store")}
)


@dataclass
class Instruction:
    kind: str
    beats: int  # cycles for which nothing else of its kind begins
    latency: int
    writes: list
    reads: list
    late: str | None = None  # an operand that may come three cycles later
    base: str | None = None  # an address that is written back
    sets_flags: bool = False
    reads_flags: bool = False


def register(match):
    bank, number = match
    return ("v" if bank in "vqdshb" else "x") + number


def registers(text):
    return [register(match) for match in REGISTER.findall(text)]


def read(line):
    """An instruction from its assembly."""
    name, _, operands = line.partition(" ")
    name, operands = name.strip(), operands.strip()
    kind, beats, latency = cost(name, operands)
    all_registers = registers(operands)
    if kind in ("vector store", "store", "branch") or name in ("cmp", "tst"):
        writes, reads = [], all_registers
    elif kind in ("vector load", "load"):
        writes = registers(operands.split("[")[0])
        reads = all_registers[len(writes) :]
    else:
        writes, reads = all_registers[:1], all_registers[1:]
        if ACCUMULATES.match(name):
            reads = all_registers
    instruction = Instruction(kind, beats, latency, writes, reads)
    if LATE_ACCUMULATOR.match(name) and writes and reads.count(writes[0]) == 1:
        instruction.late = writes[0]
    base = re.search(r"\[(x|sp)(\d*)", operands)
    if base and ("!" in operands or re.search(r"\],\s*#", operands)):
        instruction.base = "x" + base.group(2)
    instruction.sets_flags = name in SETS_FLAGS
    instruction.reads_flags = name.startswith("b.")
    return instruction


def cost(name, operands):
    """Kind, beats and latency."""
    is_vector = re.search(r"\b[vqd]\d+", operands) or operands.startswith("{")
    if name == "ld1r":
        return "vector load", 1, 4
    if VECTOR_MEMORY.match(name):
        moved = operands.split("[")[0]
        whole, halves = len(re.findall(r"[qv]\d+", moved)), len(re.findall(r"\bd\d+", moved))
        if name.startswith("st") and whole + halves:
            return "vector store", whole + (halves + 1) // 2 if whole else halves, 1
        if whole + halves:
            return "vector load", 2 * whole + halves, 4
    if name in ("ldr", "ldur") or name.startswith(("ldr", "ldur")):
        return "load", 1, 3
    if name == "ldp":
        return "load", 2 if operands.startswith("x") else 1, 3
    if name.startswith(("str", "stp", "stur")):
        return "store", 1, 1
    if name in ("b", "bl", "br", "blr", "ret") or name.startswith(("b.", "cb", "tb")) and not is_vector:
        return "branch", 1, 1
    if is_vector and name in ("ins", "mov", "fmov", "dup", "umov"):
        return "move", 1, 2
    if is_vector:
        return "vector", 1, 4 if SLOW_VECTOR.match(name) else 3
    return "integer", 1, 2 if re.search(r"ls[lr]|uxt", operands) else 1


@dataclass
class Core:
    cycle: int = 0
    begun: list = field(default_factory=list)  # kinds that began in this cycle
    ready: dict = field(default_factory=dict)  # when registers and flags are there

    def wait_until(self, cycle):
        if cycle > self.cycle:
            self.cycle, self.begun = cycle, []

    def has_room_for(self, kind):
        if not self.begun:
            return True
        return len(self.begun) < 2 and self.begun[0] != "branch" and (self.begun[0], kind) not in APART

    def run(self, instruction):
        for name in instruction.reads:
            early = 3 if name == instruction.late else 0
            self.wait_until(self.ready.get(name, 0) - early)
        if instruction.reads_flags:
            self.wait_until(self.ready.get("flags", 0))
        if not self.has_room_for(instruction.kind):
            self.wait_until(self.cycle + 1)
        self.begun.append(instruction.kind)
        # A load of several registers gives one after the other.
        step = 0 if instruction.kind != "vector load" else 2 if instruction.beats > 1 else 1
        for index, name in enumerate(instruction.writes):
            self.ready[name] = self.cycle + instruction.latency + step * index
        if instruction.base:
            self.ready[instruction.base] = self.cycle + 1
        if instruction.sets_flags:
            self.ready["flags"] = self.cycle + 1
        if instruction.beats > 1:
            # Beside the last beat another one may begin.
            self.cycle += instruction.beats - 1
            self.begun = [instruction.kind]


def cycles(lines):
    """Cycles that a block takes which runs over and over."""
    block = [read(line) for line in lines]
    core = Core()
    ends = []
    for _ in range(ITERATIONS):
        for instruction in block:
            core.run(instruction)
        ends.append(core.cycle)
    half = ITERATIONS // 2
    return (ends[-1] - ends[half - 1]) / (ITERATIONS - half)
