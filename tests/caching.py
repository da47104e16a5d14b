"""Print a solve, its gradient and how many compilations a cache held: `python caching.py DIRECTORY`."""

import collections
import json
import sys

import jax
import jax.monitoring

import node_jax as nj

COUNTS = collections.Counter()


def end(rate):
    return nj.odesolve(nj.testing.decay, 1.0, 0.0, 1.0, rate, steps=nj.Adaptive(1e-3, 1e-6)).z1


jax.config.update("jax_compilation_cache_dir", sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
jax.monitoring.register_event_listener(lambda event, **_: COUNTS.update([event.rpartition("/")[2]]))
value, slope = jax.value_and_grad(end)(2.0)
print(json.dumps({"results": [float(value), float(slope)], **COUNTS}))
