"""Pipelines of steps that do nothing, in Python. Started by pipelines.py in the environment of one entrant.

    python pipelines_python.py flujo|langgraph|asyncio|uvloop SECS

Says a line of JSON for each case: how many a second of the clock and of the processor.
"""

import asyncio, json, logging, os, sys, time

logging.disable(logging.CRITICAL)
STEPS = 1000
TEXT = "x" * 1000


async def rate(case, secs, each, once, warm=True):
    """Does `once`, which counts for `each`, again and again."""
    if warm:
        await once()
    count, start, busy = 0, time.perf_counter(), time.process_time()
    while True:
        await once()
        count += each
        if (took := time.perf_counter() - start) >= secs:
            break
    busy = max(1e-9, time.process_time() - busy)
    print(json.dumps({"case": case, "median": count / took, "per_cpu_s": count / busy}), flush=True)


async def bare(secs):
    """No engine at all: what the event loop and a dictionary cost."""
    import hashlib

    async def step(number):
        await asyncio.sleep(0)
        return number + 1

    async def chain():
        number = 0
        for _ in range(STEPS):
            number = await step(number)
        assert number == STEPS

    async def run():
        assert await asyncio.create_task(step(1)) == 2

    known = {}

    async def cached():
        for _ in range(STEPS):
            key = hashlib.blake2b(json.dumps({"step": "same", "input": TEXT}).encode()).digest()
            if key not in known:
                known[key] = TEXT

    async def mixed():
        await asyncio.gather(*(step(1) for _ in range(4)))
        key = hashlib.blake2b(json.dumps({"step": "one", "input": [2, 2, 2, 2]}).encode()).digest()
        if key not in known:
            known[key] = 1

    await rate("chain", secs, STEPS, chain)
    await rate("runs", secs, 1, run)
    await rate("cached", secs, STEPS, cached)
    await rate("mixed", secs, 5, mixed)


async def langgraph(secs):
    import operator
    from typing import Annotated, TypedDict
    from langgraph.cache.memory import InMemoryCache
    from langgraph.graph import END, START, StateGraph
    from langgraph.types import CachePolicy

    class Number(TypedDict):
        value: int

    class Text(TypedDict):
        value: str

    class Sum(TypedDict):
        value: Annotated[int, operator.add]

    async def more(state):
        return {"value": state["value"] + 1}

    async def same(state):
        return {"value": state["value"]}

    async def one(_):
        return {"value": 1}

    def chain(sort, steps, does, remembers):
        graph = StateGraph(sort)
        policy = {"cache_policy": CachePolicy()} if remembers else {}
        for number in range(steps):
            graph.add_node(f"n{number}", does, **policy)
            graph.add_edge(f"n{number - 1}" if number else START, f"n{number}")
        graph.add_edge(f"n{steps - 1}", END)
        return graph.compile(**({"cache": InMemoryCache()} if remembers else {}))

    config = {"recursion_limit": STEPS + 10}
    long, short, cached = chain(Number, STEPS, more, False), chain(Number, 1, more, False), chain(Text, STEPS, same, True)
    graph = StateGraph(Sum)
    for name in "abcd":
        graph.add_node(name, one)
        graph.add_edge(START, name)
    graph.add_node("last", one, cache_policy=CachePolicy(key_func=lambda state: "same"))
    graph.add_edge(list("abcd"), "last")
    graph.add_edge("last", END)
    mixed = graph.compile(cache=InMemoryCache())

    await rate("chain", secs, STEPS, lambda: long.ainvoke({"value": 0}, config))
    await rate("runs", secs, 1, lambda: short.ainvoke({"value": 1}))
    await rate("cached", secs, STEPS, lambda: cached.ainvoke({"value": TEXT}, config))
    await rate("mixed", secs, 5, lambda: mixed.ainvoke({"value": 0}))


async def flujo(secs):
    os.environ.setdefault("FLUJO_TEST_MODE", "0")
    from flujo import Flujo, Pipeline, Step
    from flujo.domain.dsl.step import MergeStrategy

    async def more(number: int) -> int:
        return number + 1

    async def same(text: str) -> str:
        return text

    async def one(_) -> int:
        return 1

    def step(name, does):
        return Step.from_callable(does, name=name)

    def chain(steps):
        pipeline = Pipeline.from_step(steps[0])
        pipeline.steps.extend(steps[1:])
        return pipeline

    def runner(pipeline):
        # Nothing is kept and nothing traced: what is compared is the engine.
        return Flujo(pipeline, pipeline_name="pace", pipeline_id="pace", persist_state=False, enable_tracing=False)

    async def ends(engine, given):
        result = None
        async for result in engine.run_async(given):
            pass
        assert result.step_history[-1].success

    long = runner(chain([step(f"s{number}", more) for number in range(STEPS)]))
    short = runner(chain([step("one", more)]))
    cached = runner(chain([Step.cached(step("same", same))] * STEPS))
    four = Step.parallel("four", {name: step(name, more) for name in "abcd"}, merge_strategy=MergeStrategy.NO_MERGE)
    mixed = runner(Pipeline.from_step(four) >> Step.cached(step("last", one)))

    await rate("chain", secs, STEPS, lambda: ends(long, 0), warm=False)
    await rate("runs", secs, 1, lambda: ends(short, 1))
    await rate("cached", secs, STEPS, lambda: ends(cached, TEXT))
    await rate("mixed", secs, 5, lambda: ends(mixed, 1))


def main():
    entrant, secs = sys.argv[1], float(sys.argv[2])
    work = {"flujo": flujo, "langgraph": langgraph, "asyncio": bare, "uvloop": bare}[entrant]
    if entrant == "uvloop":
        import uvloop
        uvloop.run(work(secs))
    else:
        asyncio.run(work(secs))


main()
