"""What XLA made of a program, read from its text: the instructions that run, their bytes, cycles and source lines.

Bytes are those of operands and results in the device's large memory, padded as the compiler lays them out. Of an array
from which an instruction only reads slices or rows these alone count. A conditional counts as its dearest branch, and
one of every k-th step as a k-th of that.
"""

import collections
import functools
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from cgan_jax.losses.terms import seldom_of

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_ARRAY = re.compile(rf"\b({'|'.join(_BYTES)})\[([\d,]*)\](?:\{{([\d,]*)(?::([^}}]*))?\}})?")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_COLLECTIVE = re.compile(r"(all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)(-start)?")
_MOVES_NOTHING = {
    *("parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all", "partition-id", "iota"),
    *("opt-barrier", "replica-id", "while", "call", "conditional"),
}
_READS_PART = ("dynamic-slice", "gather", "slice")


class Instruction(NamedTuple):
    """One line of a computation."""

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def is_asynchronous_end(self) -> bool:
        return self.op.endswith(("-done", "-update"))

    @property
    def called(self) -> str:
        """The computation that a fusion is made of, or ""."""
        found = re.search(r"calls=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    @property
    def cycles(self) -> int:
        """The compiler's estimate; 0 if it gives none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else 0

    @property
    def collective(self) -> str:
        """all-reduce, all-gather, ..., or ""."""
        found = _COLLECTIVE.fullmatch(self.op)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """What a custom call calls, such as a convolution of cuDNN, or ""."""
        found = re.search(r'custom_call_target="([^"]+)"', self.attributes)
        return found[1] if found else ""


class Program:
    """A compiled program."""

    def __init__(self, text: str):
        """`text` is what `jax.stages.Compiled.as_text` returns."""
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.entry = ""
        current: dict[str, Instruction] = {}
        for line in text.splitlines():
            if head := _COMPUTATION.match(line):
                current = self.computations[head[2]] = {}
                self.entry = head[2] if head[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                current[found[1]] = _parsed(found[1], found[2])
        header = text.split("\n", 1)[0]
        self.donated = header.count("may-alias") + header.count("must-alias")
        self._frames = _frames(text)

    def runs(
        self, computation: str = "", times: float = 1, period: int = 1
    ) -> Iterator[tuple[str, Instruction, float]]:
        """(computation, instruction, how often it runs) for all that a call of the program runs, loops unrolled.

        A loop whose number of turns the text does not tell counts once. The computation runs `times` times, at every
        `period`-th step.
        """
        computation = computation or self.entry
        for instruction in self.computations[computation].values():
            if instruction.op == "while":
                body = re.search(r"body=%?([\w.\-]+)", instruction.attributes)[1]
                yield from self.runs(body, times * self.turns(instruction), period)
            elif instruction.op == "call":
                yield from self.runs(re.search(r"to_apply=%?([\w.\-]+)", instruction.attributes)[1], times, period)
            elif instruction.op == "conditional":
                both = math.lcm(period, seldom_of(instruction.attributes))
                yield from self.runs(self._dearest(instruction), times * period / both, both)
            else:
                yield computation, instruction, times

    def turns(self, loop: Instruction) -> int:
        """The turns of a while loop: as noted by the compiler, or the number that its counter is compared with."""
        if noted := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(noted[1])
        condition = self.computations[re.search(r"condition=%?([\w.\-]+)", loop.attributes)[1]]
        *_, root = condition.values()
        constants = [self._constant(condition[name]) for name in root.operands if name in condition]
        is_counter = root.op == "compare" and "direction=LT" in root.attributes and root.shape.startswith("pred[]")
        return next((c for c in constants if c), 1) if is_counter else 1

    def _constant(self, instruction: Instruction) -> int:
        return int(instruction.operands[0]) if instruction.op == "constant" and instruction.operands else 0

    def _dearest(self, conditional: Instruction) -> str:
        found = re.search(r"branch_computations=\{([^}]*)\}", conditional.attributes)
        names = found[1] if found else " ".join(re.findall(r"\w+_computation=(%?[\w.\-]+)", conditional.attributes))
        branches = re.findall(r"%?([\w.\-]+)", names)
        return max(branches, key=lambda name: sum(self.bytes_of(c, i) * n for c, i, n in self.runs(name)))

    def bytes_of(self, computation: str, instruction: Instruction) -> int:
        """Bytes that one run of the instruction reads from and writes to the device's large memory."""
        op, scope = instruction.op, self.computations[computation]
        if op in _MOVES_NOTHING or instruction.is_asynchronous_end:
            return 0
        results = _arrays(instruction.shape)
        shapes = [_arrays(scope[name].shape) if name in scope else [] for name in instruction.operands]
        if op in ("copy-start", "slice-start", "async-start"):
            # What arrives is the first result of a copy, and the smaller of a slice's, beside which its operand stands.
            arrived = results[0] if op == "copy-start" else min(results[:2], key=lambda array: array.padded)
            ends = [arrived, *shapes[0][:1]]
            return arrived.padded * sum(array.is_large for array in ends)
        if op in _READS_PART:
            return 2 * _large(results)
        if op == "dynamic-update-slice":
            return 2 * _large(shapes[1])
        if instruction.collective and op.endswith("-start"):
            return sum(map(_large, shapes)) + _large(self._arrived(computation, instruction))
        inner = self.computations.get(instruction.called, {})
        update = _update_in_place(inner)
        total = _large(results) if update is None else update
        for number, arrays in enumerate(shapes):
            read = _read_in_part(inner, number)
            total += _large(arrays) if read is None else min(read, _large(arrays))
        return total

    def collectives(self) -> collections.Counter[tuple[str, int]]:
        """How often a call runs each (collective, bytes of its result)."""
        counted: collections.Counter[tuple[str, int]] = collections.Counter()
        for computation, instruction, times in self.runs():
            if instruction.collective:
                size = sum(array.padded for array in self._arrived(computation, instruction))
                counted[instruction.collective, size] += times
        return counted

    def _arrived(self, computation: str, instruction: Instruction) -> "list[_Array]":
        """The results of a collective, whose operands stand before them if it is the start of an asynchronous one."""
        results, scope = _arrays(instruction.shape), self.computations[computation]
        if not instruction.op.endswith("-start") or instruction.collective == "all-reduce":
            return results
        given = sum(len(_arrays(scope[name].shape)) for name in instruction.operands if name in scope)
        return results[given : 2 * given]

    def products(self) -> collections.Counter[str]:
        """The convolutions and matrix products in the text by the dtype of their results, such as "bf16"."""
        counted: collections.Counter[str] = collections.Counter()
        for computation in self.computations.values():
            for instruction in computation.values():
                if instruction.op in ("convolution", "dot") or re.match(r"__cu(dnn\$conv|blas)", instruction.target):
                    counted[_ARRAY.search(instruction.shape)[1]] += 1
        return counted

    def makes(self, dtype: str, size: int) -> bool:
        """Whether the program writes an array of the dtype, of at least `size` bytes, to the large memory."""
        for _, instruction, _ in self.runs():
            if instruction.op in _MOVES_NOTHING:
                continue
            written = list(_ARRAY.finditer(instruction.shape))
            # The operand of a copy stands beside its result.
            for found in written[:1] if instruction.op == "copy-start" else written:
                (array,) = _arrays(found[0])
                if found[1] == dtype and array.is_large and array.padded >= size:
                    return True
        return False

    def line_of(self, instruction: Instruction, root: str = "cgan_jax/") -> str:
        """The lines of our code that the instruction comes from: the innermost, and that of the architecture, if any.

        "" if it comes from none.
        """
        found = re.search(r"stack_frame_id=(\d+)", instruction.attributes)
        ours = [] if not found else [place for place in self._stack(int(found[1])) if root in place]
        ours = [place.rsplit(root, 1)[1] for place in ours]
        architecture = [place for place in ours[1:] if "architectures/" in place]
        return " from ".join([*ours[:1], *architecture[:1]])

    def _stack(self, number: int) -> list[str]:
        """ "file:line" of a stack frame and of those that called it."""
        places = []
        while number in self._frames and len(places) < 100:
            place, number = self._frames[number]
            places.append(place)
        return places


class _Array(NamedTuple):
    is_large: bool
    """Whether it lies in the large memory, not in a cache that the compiler manages."""
    padded: int
    """Bytes."""


@functools.cache
def _arrays(shape: str) -> list[_Array]:
    """The arrays of a shape, of which a tuple has several."""
    arrays = []
    for dtype, dimensions, order, rest in _ARRAY.findall(shape):
        sides = [int(side) for side in dimensions.split(",") if side]
        tile = re.search(r"T\(([\d,]+)\)", rest)
        if tile and sides and order:
            minor_first = [int(axis) for axis in order.split(",")]
            for axis, step in zip(minor_first, reversed([int(side) for side in tile[1].split(",")]), strict=False):
                sides[axis] = -(-sides[axis] // step) * step
        arrays.append(_Array(not re.search(r"S\([1-9]\)", rest), math.prod(sides) * _BYTES[dtype]))
    return arrays


def _large(arrays: list[_Array]) -> int:
    return sum(array.padded for array in arrays if array.is_large)


def _parsed(name: str, text: str) -> Instruction:
    """An instruction from what follows its "=": a shape, an operation, operands in parentheses, and attributes."""
    end = _closing(text) + 1 if text.startswith("(") else text.index(" ")
    shape, (op, _, rest) = text[:end], text[end:].strip().partition("(")
    end = _closing("(" + rest) - 1
    inside = rest[:end]
    operands = (inside,) if op in ("constant", "parameter") else tuple(re.findall(r"%([\w.\-]+)", inside))
    if op == "constant" and not inside.lstrip("-").isdigit():
        operands = ()
    return Instruction(name, op, shape, operands, rest[end:])


def _closing(text: str) -> int:
    """The index of the parenthesis that closes the one at the start."""
    depth = 0
    for found in re.finditer(r"[()]", text):
        depth += 1 if found[0] == "(" else -1
        if not depth:
            return found.start()
    return len(text) - 1


def _read_in_part(inner: dict[str, Instruction], number: int) -> int | None:
    """Bytes that a fusion reads of its operand `number`, if it only reads slices of it or writes a slice into it."""
    found = [i.name for i in inner.values() if i.op == "parameter" and i.operands == (str(number),)]
    users = [i for i in inner.values() if found and found[0] in i.operands]
    if not users or any(i.operands[0] != found[0] for i in users):
        return None
    if all(i.op in _READS_PART for i in users):
        return sum(array.padded for i in users for array in _arrays(i.shape)[:1])
    return 0 if all(i.op == "dynamic-update-slice" for i in users) else None


def _update_in_place(inner: dict[str, Instruction]) -> int | None:
    """Bytes that a fusion writes if it ends with an update of a slice, else None."""
    if not inner:
        return None
    *_, root = inner.values()
    if root.op != "dynamic-update-slice" or root.operands[1] not in inner:
        return None
    return sum(array.padded for array in _arrays(inner[root.operands[1]].shape))


def _frames(text: str) -> dict[int, tuple[str, int]]:
    """Stack frame -> ("file:line", the frame that called it, 0 for none), from the tables at the head of the text."""
    files, places, frames = {}, {}, {}
    head = text[: text.find("\n%")]
    for number, name in re.findall(r'^(\d+) "(.*)"$', head.partition("FunctionNames")[0], re.MULTILINE):
        files[number] = name
    for number, file, line in re.findall(r"^(\d+) \{file_name_id=(\d+).*? line=(\d+)", head, re.MULTILINE):
        places[number] = f"{files.get(file, '?')}:{line}"
    found = re.findall(r"^(\d+) \{file_location_id=(\d+)(?: parent_frame_id=(\d+))?", head, re.MULTILINE)
    # Some versions number the parents from 1, with 0 for none; a frame that calls itself gives that away.
    later = any(number == parent for number, _, parent in found)
    for number, place, parent in found:
        frames[int(number)] = places.get(place, "?"), int(parent or 0) - later
    return frames
