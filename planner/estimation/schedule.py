"""The HTP compiler's schedule of a graph, read from the text that it writes beside a session. Pure but for reading.

The compiler turns each QNN operator into many scheduled ones, tiled so that their tensors fit the chip's fast memory (VTCM,
8 MB). A scheduled operator's id carries, in its lower 32 bits, the id of the QNN operator that it came from; the text names
those, after the ONNX nodes. Of two operators that the compiler fused, the later one gives the id.

Known from: the text that onnxruntime-qnn 2.7.0 writes at profiling level "optrace"; the form is not documented.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import IO

from planner.errors import EPError

# The largest text seen is 33 MB (BERT base); one beyond this is taken for a fault, as is a longer line.
LARGEST_TEXT = 2 * 2**30
_LONGEST_LINE = 2**20
_MOST_OPERATORS = 5_000_000
_ORIGIN = 0xFFFFFFFF


class Unit(StrEnum):
    """The part of the chip that runs an operator."""

    HMX = "hmx"
    """The matrix unit: convolutions and matrix products."""
    HVX = "hvx"
    """The vector unit: all other arithmetic, and layout changes."""
    DMA = "dma"
    """Copies between DRAM and VTCM."""
    OTHER = "other"


class UnknownForm(EPError):
    """The text is not of the form that is known here."""


@dataclass(frozen=True, slots=True)
class Scheduled:
    """One operator as scheduled.

    Attributes:
        id: the compiler's. kind: the compiler's name for what it does, such as "q::ConvLayer_s1.opt".
        kernel: name of the function that implements it; "" where the text does not tell.
        node: name of the QNN operator it came from, "" for what moves the graph's inputs and outputs or has no name.
        dram_read, dram_write, vtcm_read, vtcm_write: bytes.
        type: of the values that the QNN operator makes: "float", "int8", "int16", the compiler's own word, or "" if unknown.
    """

    id: int
    kind: str
    kernel: str
    unit: Unit
    node: str
    dram_read: int
    dram_write: int
    vtcm_read: int
    vtcm_write: int
    type: str = ""

    @property
    def dram(self) -> int:
        """Bytes from and to DRAM."""
        return self.dram_read + self.dram_write

    @property
    def vtcm(self) -> int:
        """Bytes from and to VTCM."""
        return self.vtcm_read + self.vtcm_write


@dataclass(frozen=True, slots=True)
class Product:
    """A convolution or matrix product before it was tiled.

    Attributes:
        node: name of the QNN operator.
        activation: what it multiplies by: "float", "int8" or "int16" (signed or not), or the compiler's own word.
        macs: multiply-accumulates.
    """

    node: str
    activation: str
    macs: int


@dataclass(frozen=True)
class Schedule:
    """The schedule of one graph, or of several that run one after another.

    Attributes:
        operators: those that move bytes, in the order they are scheduled.
        queues: length of each run list: "main" (DMA and the matrix unit), "vec" (the vector unit), "mtx", "elt".
        vtcm_peak: bytes of VTCM in use, the largest of the graphs.
        fused: names of QNN operators that have no scheduled operator of their own: fused into another, or folded away.
        products: the convolutions and matrix products of the graph as the compiler was given it.
        graphs: how many graphs there are. bytes: length of the text.
        beside: name of each QNN operator -> those that it reads from, then those that read from it.
    """

    operators: tuple[Scheduled, ...] = field(repr=False)
    queues: Mapping[str, int]
    vtcm_peak: int
    fused: tuple[str, ...]
    products: tuple[Product, ...] = field(default=(), repr=False)
    graphs: int = 1
    bytes: int = 0
    beside: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)

    @cached_property
    def dram_read(self) -> int:
        return sum(o.dram_read for o in self.operators)

    @cached_property
    def dram_write(self) -> int:
        return sum(o.dram_write for o in self.operators)

    @property
    def dram(self) -> int:
        return self.dram_read + self.dram_write

    @cached_property
    def vtcm(self) -> int:
        return sum(o.vtcm for o in self.operators)

    @cached_property
    def spilled(self) -> int:
        """Bytes that left VTCM for DRAM in the middle of the graph and came back."""
        return sum(o.dram for o in self.operators if is_spill(o))

    @cached_property
    def untraced(self) -> int:
        """Scheduled operators that came from no named QNN operator."""
        return sum(1 for o in self.operators if not o.node)

    def count(self, unit: Unit) -> int:
        """Scheduled operators of a unit."""
        return sum(1 for o in self.operators if o.unit is unit)

    def kinds(self) -> Counter[str]:
        """Scheduled operators by kind."""
        return Counter(o.kind for o in self.operators)


def is_reorder(operator: Scheduled) -> bool:
    """Whether it transposes or reshapes: of float values the slowest that the vector unit does, by the byte."""
    return "Transpose" in operator.kind or "Reshape" in operator.kind


def is_softmax(operator: Scheduled) -> bool:
    """Whether it is a part of a Softmax: of float values it takes far longer than its bytes tell."""
    return "Softmax" in operator.kind


def is_spill(operator: Scheduled) -> bool:
    """Whether it moves an intermediate tensor between VTCM and DRAM: spilled there, or filled again from there."""
    return bool(_SPILL.fullmatch(operator.kind))


_SPILL = re.compile(r"@(Spill|Fill)|.*_from_vtcm")


def joined(schedules: Iterable[Schedule]) -> Schedule:
    """The schedules of several graphs of one session as one."""
    every = list(schedules)
    queues: Counter[str] = Counter()
    for schedule in every:
        queues.update(schedule.queues)
    return Schedule(
        tuple(o for s in every for o in s.operators),
        dict(queues),
        max((s.vtcm_peak for s in every), default=0),
        tuple(name for s in every for name in s.fused),
        tuple(p for s in every for p in s.products),
        len(every),
        sum(s.bytes for s in every),
        {name: others for s in every for name, others in s.beside.items()},
    )


def read_schedule(path: Path) -> Schedule:
    """Read the compiler's text, line by line.

    Raises:
        UnknownForm: it is not of the known form, is cut short, or is longer than `LARGEST_TEXT`.
        OSError: the file can't be read.
    """
    with path.open("rb") as stream:
        return parse(stream)


def parse(stream: IO[bytes]) -> Schedule:
    """Read the compiler's text from a binary stream; see `read_schedule`."""
    reader = _Reader()
    total = 0
    while line := stream.readline(_LONGEST_LINE):
        total += len(line)
        if total > LARGEST_TEXT or len(line) == _LONGEST_LINE:
            raise UnknownForm("the compiler's schedule is larger than any known one", "estimate a smaller model")
        # Nine lines of ten belong to sections that nobody asks for: they are passed over undecoded.
        if reader.section or line[:1] not in _INDENTED:
            reader.line(line.decode("utf-8", "replace").rstrip())
    reader.bytes = total
    return reader.schedule()


# A section starts with a line that assigns it, and ends with one of these.
_START = re.compile(r"(?P<name>\w+) ?= ?[\[{]")
_SECTIONS = frozenset(
    {
        "graph_before_optimization",
        "concrete_ops_info",
        "concrete_ops_info_key",
        "bandwidth_information",
        "qnn_name_translations",
        "opdesc_map",
        "tcm_block_info",
    }
)
_INDENTED = (b"\t", b" ", b"{", b"\n")
_QUEUE = re.compile(r"runlist(\d+|_(?P<name>\w+))")
_NEEDED = ("graph_before_optimization", "bandwidth_information", "qnn_name_translations", "opdesc_map")
_LAST_LINE = "End of OpInfoRegisry dump"

_BANDWIDTH = re.compile(
    r'\{"opid" : 0x(?P<id>[0-9a-f]+) , "dram_read": (\d+) , "dram_write": (\d+) , "vtcm_read": (\d+) ,'
    r' "vtcm_write": (\d+), "is_dma": ([01])\},?'
)
_NODE = re.compile(r"\t0x(?P<id>[0-9a-f]+): \{")
_INPUT = re.compile(r"\t\t\t\(0x(?P<id>[0-9a-f]+),")
_OPERATION = re.compile(r"\t\t'operation':'(?P<operation>[^']*)'")
_DTYPE = re.compile(r"\t+'dtype': '(?P<dtype>\w+)'")
_DIMS = re.compile(r"\t+'dims': \[(?P<dims>[0-9,]*)\]")
_NAME = re.compile(r"0x(?P<id>[0-9a-f]+): '(?P<name>.*)',")
_OPDESC = re.compile(r'''  '#\w+': opdesc\( 0x(?P<id>[0-9a-f]+), "(?P<kind>[^"]*)"''')
_OP_FLAGS = re.compile(r"op_flags=\((?P<flags>[^)]*)\)")
_NUMBERED = re.compile(r"\t0x(?P<id>[0-9a-f]+): (?P<number>\d+),")
_BLOCK = re.compile(r"\s+\d+: \(0x(?P<at>[0-9a-f]+), 0x(?P<size>[0-9a-f]+)\),")
# A name in the mangled symbol of a kernel's template: its function.
_FUNCTION = re.compile(r"_ZL?(?P<length>\d+)")
_UNITS = (("RESOURCE_HMX", Unit.HMX), ("FOR_HVX", Unit.HVX), ("FOR_DMA", Unit.DMA))


class _Node:
    """An operator of the graph as it was given to the compiler: its inputs' ids, its outputs' types and shapes."""

    __slots__ = ("dims", "dtypes", "inputs", "operation")

    def __init__(self) -> None:
        self.operation = ""
        self.inputs: list[int] = []
        self.dtypes: list[str] = []
        self.dims: list[tuple[int, ...]] = []


def _macs(id: int, graph: Mapping[int, _Node]) -> int:
    """Multiply-accumulates of an operator; 0 where it is none, or a shape is missing.

    A kernel's shape is (height, width, inputs, outputs), a fully connected layer's inputs are its first input's last axis.
    """
    node = graph[id]
    shapes = [graph[i].dims[0] if i in graph and graph[i].dims else () for i in node.inputs[:2]]
    if len(shapes) < 2 or not all(shapes) or not node.dims or not node.dims[0]:
        return 0
    (data, weight), output = shapes, node.dims[0]
    if "TransposeConv" in node.operation:
        return math.prod(data) * math.prod(weight) // max(weight[-2], 1) if len(weight) > 1 else 0
    if "Conv" in node.operation:
        return math.prod(output) * math.prod(weight[:-1])
    if "FullyConnected" in node.operation or "MatMul" in node.operation:
        return math.prod(output) * data[-1]
    return 0


_ACTIVATIONS = {
    "Float32": "float",
    "Float16": "float",
    "QUInt8": "int8",
    "QInt8": "int8",
    "QUInt16": "int16",
    "QInt16": "int16",
}


def _made(node: _Node | None) -> str:
    """The type of what an operator makes."""
    dtype = node.dtypes[0] if node is not None and node.dtypes else ""
    return _ACTIVATIONS.get(dtype, dtype)


class _Reader:
    """Takes the text line by line and keeps what a schedule needs of it."""

    def __init__(self) -> None:
        self.section = ""
        self.seen: set[str] = set()
        self.complete = False
        self.bytes = 0
        self.rows: list[tuple[int, int, int, int, int, bool]] = []
        self.graph: dict[int, _Node] = {}
        self.names: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.flags: dict[int, str] = {}
        self.kernel_of: dict[int, int] = {}
        self.kernels: list[str] = []
        self.queues: Counter[str] = Counter()
        self._queue = ""
        self.vtcm_peak = 0
        self._described = 0
        self._node = _Node()

    def line(self, line: str) -> None:
        if not line:
            return
        if line[0] not in "\t {0" and self._border(line):
            return
        if self.section:
            getattr(self, f"_{self.section}")(line)

    def _border(self, line: str) -> bool:
        """Whether the line opens or closes a section, or stands between two."""
        if found := _START.match(line):
            name = found["name"]
            self.section = name if name in _SECTIONS else ""
            if queue := _QUEUE.fullmatch(name):
                self.section, self._queue = "runlist", queue["name"] or "main"
            self.seen.add(name)
            return True
        if line.startswith(("}", "]")):
            self.section = ""
            return True
        self.complete = self.complete or _LAST_LINE in line
        return line.startswith("#")

    # -- one method a section ---------------------------------------------------------------------------------------

    def _graph_before_optimization(self, line: str) -> None:
        # The longest section: what a line may be is told by its start before any pattern is tried.
        if line.startswith("\t0x"):
            if found := _NODE.match(line):
                self._node = self.graph[int(found["id"], 16)] = _Node()
        elif line.startswith("\t\t\t(0x"):
            if found := _INPUT.match(line):
                self._node.inputs.append(int(found["id"], 16))
        elif "'d" in line:
            if found := _DTYPE.match(line):
                self._node.dtypes.append(found["dtype"])
            elif found := _DIMS.match(line):
                self._node.dims.append(tuple(int(d) for d in found["dims"].split(",") if d))
        elif line.startswith("\t\t'operation'") and (found := _OPERATION.match(line)):
            self._node.operation = found["operation"]

    def _bandwidth_information(self, line: str) -> None:
        found = _BANDWIDTH.fullmatch(line)
        if found is None:
            raise UnknownForm(f"the compiler's schedule has a row of unknown form: {line[:120]!r}", _NEXT)
        read, write, vtcm_read, vtcm_write = (int(found[i]) for i in range(2, 6))
        self.rows.append((int(found["id"], 16), read, write, vtcm_read, vtcm_write, found[6] == "1"))
        if len(self.rows) > _MOST_OPERATORS:
            raise UnknownForm(
                "the compiler's schedule has more operators than any known one", "estimate a smaller model"
            )

    def _qnn_name_translations(self, line: str) -> None:
        if found := _NAME.fullmatch(line):
            self.names[int(found["id"], 16)] = found["name"]

    def _opdesc_map(self, line: str) -> None:
        if line.startswith("  '#") and (found := _OPDESC.match(line)):
            self._described = int(found["id"], 16)
            self.kinds[self._described] = found["kind"]
        elif "op_flags" in line and (found := _OP_FLAGS.search(line)):
            self.flags[self._described] = found["flags"]

    def _concrete_ops_info(self, line: str) -> None:
        if found := _NUMBERED.fullmatch(line):
            self.kernel_of[int(found["id"], 16)] = int(found["number"])

    def _concrete_ops_info_key(self, line: str) -> None:
        if line.startswith('\t"'):
            self.kernels.append(_function(line.strip('\t",')))

    def _runlist(self, line: str) -> None:
        if line.startswith("\t0x"):
            self.queues[self._queue] += 1

    def _tcm_block_info(self, line: str) -> None:
        if found := _BLOCK.fullmatch(line):
            self.vtcm_peak = max(self.vtcm_peak, int(found["at"], 16) + int(found["size"], 16))

    # -- the value --------------------------------------------------------------------------------------------------

    def schedule(self) -> Schedule:
        missing = [name for name in _NEEDED if name not in self.seen]
        if missing:
            raise UnknownForm(f"the compiler's schedule is of an unknown form: it has no {missing[0]}", _NEXT)
        if not self.complete:
            raise UnknownForm("the compiler's schedule is cut short", "see that the disk has space, and try again")
        operators = tuple(self._scheduled(*row) for row in self.rows)
        used = {o.id & _ORIGIN for o in operators}
        fused = tuple(name for origin, name in self.names.items() if origin not in used)
        products = tuple(
            Product(self.names.get(id, f"{id:#x}"), _made(self.graph.get(self.graph[id].inputs[0])), macs)
            for id in self.graph
            if (macs := _macs(id, self.graph))
        )
        return Schedule(
            operators, dict(self.queues), self.vtcm_peak, fused, products, bytes=self.bytes, beside=self._beside()
        )

    def _beside(self) -> dict[str, tuple[str, ...]]:
        """Who reads from whom, by name."""
        sources: dict[str, list[str]] = {}
        readers: dict[str, list[str]] = {}
        for id, node in self.graph.items():
            for source in node.inputs:
                if id in self.names and source in self.names:
                    sources.setdefault(self.names[id], []).append(self.names[source])
                    readers.setdefault(self.names[source], []).append(self.names[id])
        return {n: (*sources.get(n, ()), *readers.get(n, ())) for n in sources.keys() | readers.keys()}

    def _scheduled(self, id: int, read: int, write: int, vtcm_read: int, vtcm_write: int, is_dma: bool) -> Scheduled:
        flags = self.flags.get(id, "")
        unit = next((unit for flag, unit in _UNITS if flag in flags), Unit.OTHER)
        number = self.kernel_of.get(id)
        kernel = self.kernels[number] if number is not None and number < len(self.kernels) else ""
        return Scheduled(
            id,
            self.kinds.get(id, ""),
            kernel,
            Unit.DMA if is_dma else unit,
            self.names.get(id & _ORIGIN, ""),
            read,
            write,
            vtcm_read,
            vtcm_write,
            _made(self.graph.get(id & _ORIGIN)),
        )


_NEXT = "this version of the compiler is not known here: see docs/latency.md for those that are"


def _function(symbol: str) -> str:
    """The function's name in a mangled symbol such as N4hnnx9TypicalOpIXadL_Z15Swish_fp16_implI...; else the symbol."""
    found = _FUNCTION.search(symbol)
    if found is None:
        return symbol
    return symbol[found.end() : found.end() + int(found["length"])]
