"""Recurrent operators."""

from __future__ import annotations

from planner.probe.forms import Form, Forms, Slot, act, bias, ints, weight


def recurrent() -> Forms:
    """LSTM, GRU and RNN."""
    for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        outputs = 3 if op == "LSTM" else 2

        def parts(directions: int, gates: int = gates) -> tuple[Slot, Slot, Slot]:
            return (
                weight(directions, gates * 5, 6, axis=None),
                weight(directions, gates * 5, 5, axis=None),
                bias(directions, 2 * gates * 5),
            )

        x = act(3, 1, 6)
        base = Form(op, (x, *parts(1)), {"hidden_size": 5}, outputs=outputs, output=(-1.0, 1.0))
        yield base
        yield base.but("no-bias", x, *parts(1)[:2])
        yield base.but("direction=reverse", attributes={"direction": "reverse"})
        yield base.but("direction=bidirectional", x, *parts(2), attributes={"direction": "bidirectional"})
        states = (None, act(1, 1, 5)) if op != "LSTM" else (None, act(1, 1, 5), act(1, 1, 5))
        yield base.but("initial-state", x, *parts(1), *states)
        yield base.but("first-output-only", outputs=1)
        yield base.but("layout=1", act(1, 3, 6), *parts(1), attributes={"layout": 1}).as_rule(
            why="layout must be 0", do="transpose to layout 0"
        )
        yield base.but("steps=1", act(1, 1, 6), *parts(1))
        yield base.but("sequence_lens", x, *parts(1), ints(3, dtype="int32"))
        yield base.but("batch=2", act(3, 2, 6), *parts(1))
        if op == "GRU":
            yield base.attrs(linear_before_reset=1)
