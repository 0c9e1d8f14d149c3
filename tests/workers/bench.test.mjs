// A small run of the Workers' benchmark: it completes, every event takes effect once, the cost of an event in D1 does not grow
// with the tables, and the work of each minute scans no table. Times are ignored.
import assert from "node:assert/strict";
import { test } from "node:test";
import { run } from "../bench/workers.mjs";

test("the benchmark of the Workers completes, and an event costs the same at any size of the tables", async (t) => {
  const options = {
    // The Workers of the contract.
    built: "target/workers-test",
    secret: "TEST_STRIPE_SECRET",
    keys: {
      TEST_RESEND_KEY: "re_key",
      TEST_SENDGRID_API_KEY: "SG.key",
      TEST_TWILIO_TOKEN: "token",
      TEST_MIXPANEL_API_KEY: "key",
      TEST_POSTHOG_API_KEY: "key",
      TEST_STRIPE_API_KEY: "sk_key",
      TEST_CLERK_SECRET: "whsec_a2V5",
    },
    events: 200,
    rounds: 1,
    warmup: 1,
    connections: 16,
    small: 1000,
    large: 20_000,
  };
  const { few, many } = await run(options, (line) => t.diagnostic(line));
  for (const kind of ["read", "written"]) {
    const grown = many[kind] / few[kind];
    assert.ok(Math.abs(grown - 1) <= 0.1, `rows ${kind} per event: ${few[kind]} at ${options.small} rows, ${many[kind]} at ${options.large}`);
  }
  // Both Workers count dead letters up to 10,000, and D1 counts a counted row twice. The rest scans no table.
  assert.ok(many.minute <= 4 * 10_000 + 1000, `rows read each minute: ${few.minute} at ${options.small} rows, ${many.minute} at ${options.large}`);
});
