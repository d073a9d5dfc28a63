"""Real files of known type: the running Python's own, what its libraries carry, and documents written here.

They hang on the Python at hand (its standard library is part of them): two machines may give slightly different sets.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import importlib.util
import io
import json
import lzma
import marshal
import pickle
import sqlite3
import sysconfig
import tarfile
import tempfile
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from examples import pictures, signals

_STDLIB_MODULES = ("argparse", "bisect", "colorsys", "heapq", "this", "textwrap", "token", "queue", "sched", "shlex")
_TEXTS = {
    "shell": """\
#!/bin/bash
set -euo pipefail
for f in *.log; do
  gzip -9 "$f" && echo "packed $f"
done
exit 0
""",
    "batch": """\
@echo off\r
setlocal\r
set NAME=build\r
if not exist %NAME% mkdir %NAME%\r
copy /y *.dll %NAME%\r
pause\r
""",
    "makefile": """\
CC = gcc
CFLAGS = -O2 -Wall

all: main

main: main.o util.o
\t$(CC) -o $@ $^

clean:
\trm -f *.o main
""",
    "sql": """\
CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, total NUMERIC);
INSERT INTO orders VALUES (1, 'Ada', 12.50);
SELECT customer, SUM(total) FROM orders GROUP BY customer;
""",
    "css": """\
body { font-family: sans-serif; margin: 0 auto; max-width: 60em; }
.menu > li:hover { color: #c00; }
@media (max-width: 40em) { .menu { display: none; } }
""",
    "javascript": """\
'use strict';
const fs = require('fs');
function load(path) {
  return JSON.parse(fs.readFileSync(path));
}
module.exports = { load };
load('a.json').then((x) => console.log(x.length));
""",
    "java": """\
package org.example;

import java.util.List;

public class Main {
  public static void main(String[] args) {
    List<String> names = List.of(args);
    names.forEach(System.out::println);
  }
}
""",
    "go": """\
package main

import (
\t"fmt"
\t"os"
)

func main() {
\tfor i, a := range os.Args {
\t\tfmt.Println(i, a)
\t}
}
""",
    "rust": """\
use std::collections::HashMap;

fn main() {
    let mut counts: HashMap<char, usize> = HashMap::new();
    for c in "hello".chars() {
        *counts.entry(c).or_insert(0) += 1;
    }
    println!("{:?}", counts);
}
""",
    "yaml": """\
name: test
on: [push]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: |
          make test
""",
    "toml": """\
[project]
name = "thing"
version = "1.0"
dependencies = ["numpy>=1.26"]

[tool.black]
line-length = 100
""",
    "ini": """\
[server]
host = localhost
port = 8080

[logging]
level = INFO
file = /var/log/server.log
""",
    "markdown": """\
# A heading

Some *text* with `code` and a [link](https://example.org).

- one
- two

```python
print(1)
```
""",
    "html": """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Page</title></head>
<body><h1>Hello</h1><p>A <a href="/next">link</a> and a list:</p><ul><li>one</li><li>two</li></ul></body></html>
""",
    "xml": """\
<?xml version="1.0" encoding="UTF-8"?>
<catalog>
  <book id="b1"><author>Ada</author><price>12.50</price></book>
  <book id="b2"><author>Alan</author><price>9.00</price></book>
</catalog>
""",
    "svg": """\
<svg xmlns="http://www.w3.org/2000/svg" width="80" height="80" viewBox="0 0 80 80">
<circle cx="40" cy="40" r="30" fill="teal"/><path d="M10 10 L70 70" stroke="black"/></svg>
""",
    "srt": """\
1
00:00:01,000 --> 00:00:04,000
Good morning.

2
00:00:05,500 --> 00:00:08,250
Is anybody there?

""",
    "diff": """\
--- a/main.py
+++ b/main.py
@@ -1,4 +1,4 @@
 import sys
-print('hello')
+print('hello, world')
 sys.exit(0)
""",
}


def labelled_files() -> list[tuple[str, bytes]]:
    """(magika's label, content): about sixty files, 80 bytes to some hundred kilobytes, shuffled but always alike."""
    files = [*_stdlib(), *_installed(), *((label, text.encode()) for label, text in _TEXTS.items()), *_written()]
    order = np.random.default_rng(7).permutation(len(files))
    return [files[i] for i in order]


def magika_features(content: bytes) -> npt.NDArray[np.int32]:
    """The bytes that magika 1.0.3 looks at, int32 [1, 2048]: the first and the last 1024, 256 where there are none.

    As its feature extraction does: at most 4096 bytes are read from each end and stripped of white space, on the left
    for the beginning and on the right for the end; padding goes to the right of the one and to the left of the other.
    """
    features = np.full((1, 2048), 256, np.int32)
    begin = content[:4096].lstrip()[:1024]
    end = content[-4096:].rstrip()[-1024:]
    features[0, : len(begin)] = list(begin)
    features[0, 2048 - len(end) :] = list(end)
    return features


def _stdlib() -> Iterator[tuple[str, bytes]]:
    library = Path(sysconfig.get_path("stdlib"))
    for name in _STDLIB_MODULES:
        yield "python", (library / f"{name}.py").read_bytes()
    for name in ("heapq", "shlex", "token"):
        source = (library / f"{name}.py").read_text()
        header = importlib.util.MAGIC_NUMBER + bytes(12)
        yield "pythonbytecode", header + marshal.dumps(compile(source, f"{name}.py", "exec"))


def _installed() -> Iterator[tuple[str, bytes]]:
    import sklearn

    data = Path(sklearn.__file__).parent / "datasets"
    for label, pattern in (("csv", "data/*.csv"), ("jpeg", "images/*.jpg"), ("rst", "descr/*.rst")):
        for path in sorted(data.glob(pattern))[:3]:
            yield label, path.read_bytes()


def _written() -> Iterator[tuple[str, bytes]]:
    rng = np.random.default_rng(11)
    words = [pictures.phrase(rng, 8) for _ in range(40)]
    table = [{"id": i, "text": text, "value": float(rng.normal())} for i, text in enumerate(words)]
    yield "json", json.dumps(table, indent=2).encode()
    yield "json", json.dumps(table[0]).encode()
    yield "jsonl", "\n".join(json.dumps(row) for row in table).encode()
    text = io.StringIO()
    writer = csv.DictWriter(text, ["id", "text", "value"])
    writer.writeheader()
    writer.writerows(table)
    document = text.getvalue().encode()
    yield "csv", document
    yield "gzip", gzip.compress(document, mtime=0)
    yield "bzip", bz2.compress(document)
    yield "xz", lzma.compress(document)
    yield "pickle", pickle.dumps(table, protocol=4)
    yield "zip", _zip({"data.csv": document, "notes.txt": " ".join(words).encode()})
    yield "tar", _tar({"data.csv": document, "notes.txt": " ".join(words).encode()})
    yield "wav", _wav(signals.voice(rng, 1.0)[0])
    yield "sqlite", _sqlite(table)
    array = io.BytesIO()
    np.save(array, rng.normal(size=(50, 20)))
    yield "npy", array.getvalue()
    picture = pictures.page(rng, 300, 400)
    for label, kind in (
        ("png", "PNG"), ("jpeg", "JPEG"), ("gif", "GIF"), ("bmp", "BMP"),
        ("tiff", "TIFF"), ("webp", "WEBP"), ("ico", "ICO"), ("pdf", "PDF"),
    ):  # fmt: skip
        file = io.BytesIO()
        picture.save(file, kind)
        yield label, file.getvalue()
    line = io.BytesIO()
    pictures.text_line(rng)[0].save(line, "PNG")
    yield "png", line.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def _wav(signal: npt.NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes((signal * 32767).astype("<i2").tobytes())
    return file.getvalue()


def _sqlite(rows: list[dict[str, object]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE data (id INTEGER, text TEXT, value REAL)")
        connection.executemany("INSERT INTO data VALUES (:id, :text, :value)", rows)
        connection.commit()
        connection.close()
        return path.read_bytes()
