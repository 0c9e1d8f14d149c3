// The benchmark of the Workers in a small form: it runs to its end, every event takes effect once, and what an event costs in
// D1 does not grow with the tables. No time is looked at.
import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../bench/workers.mjs";

test("the benchmark of the Workers runs to its end, and an event costs the same at any size of the tables", async (t) => {
  const options = {
    // The Workers of the contract.
    built: "target/workers-test",
    secret: "TEST_STRIPE_SECRET",
    events: 200,
    rounds: 1,
    connections: 16,
    small: 1000,
    large: 20_000,
  };
  const { few, many } = await run(options, (line) => t.diagnostic(line));
  for (const kind of ["read", "written"]) {
    const grown = many[kind] / few[kind];
    assert.ok(Math.abs(grown - 1) <= 0.1, `rows ${kind} per event: ${few[kind]} at ${options.small} rows, ${many[kind]} at ${options.large}`);
  }
});
