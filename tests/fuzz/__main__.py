"""The command: run draws in worker processes, keep what they find, go on where the last run stopped.

python -m tests.fuzz --draws 10000 --seed 0
python -m tests.fuzz --seed 0 --show 1234      # one draw again, with a program that shows what is wrong
"""

import argparse
import collections
import json
import os
import pathlib
import queue
import select
import subprocess
import sys
import threading
import time

from tqdm import tqdm

VALUES = 10  # as in structures.py, which needs JAX
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # all versions know these
ENVIRONMENT = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK}


def main() -> int:
    """Run the command; return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="number of draws, those of earlier runs included")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--switches", type=float, default=0.05, help="share of structures under one of JAX's switches")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds after which a draw counts as hung")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/fuzz"))
    parser.add_argument("--show", type=int, help="run this draw only, and show it")
    args = parser.parse_args()
    os.environ.update({k: os.environ.get(k, v) for k, v in ENVIRONMENT.items()})
    if args.show is not None:
        return show(args)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / f"seed{args.seed}.jsonl"
    records = read(path)
    numbers = range(-(-args.draws // VALUES))
    some = {n: set(range(n * VALUES, min((n + 1) * VALUES, args.draws))) for n in numbers}
    todo = [n for n, wanted in some.items() if wanted - records.keys()]
    with path.open("a") as file, tqdm(total=args.draws, initial=args.draws - sum(len(some[n]) for n in todo)) as bar:
        run(args, todo, Sink(file, bar, records))
    return tally(records, args.draws, path)


def read(path: pathlib.Path) -> dict[int, dict]:
    """Return the records of earlier runs; a line that was cut off is no record."""
    records = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[record["index"]] = record
    return records


class Sink:
    """Where records go, from any thread: a file, a table, a bar; a fault of a new kind is printed at once."""

    def __init__(self, file, bar, records: dict[int, dict]):
        self.file, self.bar, self.records, self.lock = file, bar, records, threading.Lock()
        self.kinds = {r["kind"] for r in records.values() if not r["ok"]}

    def put(self, record: dict) -> None:
        with self.lock:
            self.records[record["index"]] = record
            self.file.write(json.dumps(record) + "\n")
            self.file.flush()
            if not record["ok"] and record["kind"] not in self.kinds:
                self.kinds.add(record["kind"])
                self.bar.write(f"\ndraw {record['index']}: {record['kind']}\n{record.get('program', '')}")
            self.bar.update()
            self.bar.set_postfix(failed=sum(not r["ok"] for r in self.records.values()), kinds=len(self.kinds))


def run(args, todo: list[int], sink: Sink) -> None:
    """Let worker processes run the structures."""
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in todo:
        tasks.put(number)
    threads = [threading.Thread(target=drive, args=(args, tasks, sink), daemon=True) for _ in range(args.workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def drive(args, tasks: queue.SimpleQueue, sink: Sink) -> None:
    """Keep one worker busy; start another where it dies or hangs, and count the draw it was at as a fault."""
    worker = None
    while not tasks.empty():
        try:
            number = tasks.get_nowait()
        except queue.Empty:
            break
        worker = worker if worker is not None and worker.poll() is None else start(args)
        worker.stdin.write(f"{number}\n".encode())
        worker.stdin.flush()
        done = 0
        while True:
            line = next_line(worker, args.patience)
            if line is None:
                what = "hangs" if worker.poll() is None else f"ends the process with {worker.poll()}"
                worker.kill()
                worker.wait()
                index = number * VALUES + done
                sink.put({"index": index, "ok": False, "kind": f"{what}, structure {number}", "findings": []})
                break  # the other draws of the structure are left to the next run
            record = json.loads(line)
            if "structure" in record and "index" not in record:
                break
            sink.put(record)
            done += 1
    if worker is not None:
        worker.stdin.close()
        worker.wait()


def start(args) -> subprocess.Popen:
    """Start a worker."""
    numbers = (str(args.seed), str(args.switches), str(args.draws))
    command = [sys.executable, "-m", "tests.fuzz.worker", *numbers]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )


def next_line(worker: subprocess.Popen, patience: float) -> bytes | None:
    """Return the next line that a worker writes; None if it does not in time, or ended."""
    until, line = time.monotonic() + patience, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([worker.stdout], [], [], max(until - time.monotonic(), 0))
        if not ready:
            return None
        piece = os.read(worker.stdout.fileno(), 1) if not line else worker.stdout.readline()
        if not piece:
            return None
        line += piece
    return line


def tally(records: dict[int, dict], draws: int, path: pathlib.Path) -> int:
    """Print how many draws of which kind failed; return 1 if any did."""
    wanted = [r for i, r in records.items() if i < draws]
    kinds = collections.Counter(r["kind"] for r in wanted if not r["ok"])
    for kind, count in kinds.most_common():
        first = min(r["index"] for r in wanted if not r["ok"] and r["kind"] == kind)
        print(f"{count:6d}  {kind}  (first: {first})")
    print(f"{len(wanted):,} draws, {sum(kinds.values()):,} failed, {len(kinds):,} kinds; see {path}")
    return int(bool(kinds))


def show(args) -> int:
    """Run one draw in a process of its own and show what it found."""
    call = f"record({args.seed}, {args.show}, {args.switches}, set())"
    program = f"import json; from tests.fuzz.worker import record; print(json.dumps({call}))"
    out = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout
    record = json.loads(out.splitlines()[-1])
    print(json.dumps({k: v for k, v in record.items() if k != "program"}, indent=2))
    print(record.get("program", "nothing is wrong"))
    return int(not record["ok"])


if __name__ == "__main__":
    sys.exit(main())
