"""Draw solves at random, and hold everything they return against what is known about them.

`make fuzz N=10000 SEED=0` runs draws and keeps what came out in `build/fuzz/`; a few run with the tests.

A *structure* is all that a compilation depends on: field, tree, dtypes, method, steps, save, adjoint, lanes, and so on.
It is compiled once and run with the values of several *draws*: times, tolerances, parameters, lanes that fail. Draw `i`
of a seed belongs to structure `i // VALUES`; the seed and `i` determine it.

    fields.py       vector fields with closed forms
    structures.py   the record of a structure
    draws.py        draws one: what may be combined, and how often
    times.py        times of a draw: either direction, length zero, repeated, padded
    values.py       the values of a draw
    failing.py      lanes that fail, and with which status
    solves.py       the solve of a structure, and the derivatives taken of it
    references.py   what it should return: closed forms, and plain Runge-Kutta loops for prescribed steps
    tolerances.py   how far the two may be apart
    checks.py       runs both, and the same by other ways
    comparing.py    compares arrays, and says what is wrong
    programs.py     a short program that shows what was found
    shrinking.py    finds a smaller draw with the same fault
    worker.py       a process that runs structures
    __main__.py     the command

To add a field, write its slope and its closed form in `fields.py` and add a row to `FIELDS` there.
"""
