// CPU per event of the Workers, end to end in workerd, against a floor Worker in the same run. What is counted is the time
// that the process workerd spent on a processor: ingress, queue, consumer and D1, with all that the local runtime itself
// does. Run by `cargo xtask bench`.
import { createHmac } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Miniflare, convertV4MiniflareOptions } from "miniflare";

const bench = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(bench));
const EVENTS = 4000;
const CONNECTIONS = 32;
const ROUNDS = 9;
const SECRET = "whsec_benchmark";
const { subscription } = JSON.parse(readFileSync(join(root, "hookmill/samples/stripe.json"), "utf8"));

const queue = { maxBatchSize: 100, maxBatchTimeout: 1, maxRetries: 3, retryDelay: 0 };
const common = { compatibilityDate: "2026-11-01", modulesRoot: "/" };

function ours(stage) {
  const built = join(root, "target/workers", stage);
  return {
    ...common,
    name: stage,
    modules: [
      { type: "ESModule", path: "/index.js", contents: readFileSync(join(built, "index.js"), "utf8") },
      { type: "CompiledWasm", path: "/index_bg.wasm", contents: readFileSync(join(built, "index_bg.wasm")) },
    ],
    r2Buckets: { BODIES: "bodies" },
  };
}

const contestants = {
  floor: {
    table: "floor",
    workers: [
      {
        ...common,
        name: "floor",
        modules: [{ type: "ESModule", path: "/floor.mjs", contents: readFileSync(join(bench, "floor.mjs"), "utf8") }],
        queueProducers: { EVENTS: { queueName: "events" } },
        queueConsumers: { events: queue },
        d1Databases: { DB: "db" },
      },
    ],
  },
  hookmill: {
    table: "events",
    workers: [
      {
        ...ours("ingress"),
        queueProducers: { EVENTS: { queueName: "hookmill-events" } },
        bindings: { STRIPE_WEBHOOK_SECRET: SECRET, CLERK_WEBHOOK_SECRET: "whsec_YmVuY2htYXJr" },
      },
      { ...ours("consumers"), queueConsumers: { "hookmill-events": queue }, d1Databases: { DB: "db" } },
    ],
  },
};

async function start({ workers }) {
  const miniflare = new Miniflare(convertV4MiniflareOptions({ host: "127.0.0.1", port: 0, workers, handleStructuredLogs: () => {} }));
  const url = await miniflare.ready;
  const database = await miniflare.getD1Database("DB", workers.at(-1).name);
  await database.prepare("CREATE TABLE floor (id TEXT PRIMARY KEY, length INTEGER) WITHOUT ROWID").run();
  for (const name of readdirSync(join(root, "migrations")).filter((name) => name.endsWith(".sql")).sort()) {
    const sql = readFileSync(join(root, "migrations", name), "utf8").replace(/--.*$/gm, "");
    for (const statement of sql.split(";")) if (statement.trim()) await database.prepare(statement).run();
  }
  // workerd is the child that this start made.
  const pid = children().find((child) => !known.has(child));
  known.add(pid);
  return { miniflare, url, database, pid };
}

const known = new Set();
const children = () =>
  readFileSync(`/proc/self/task/${process.pid}/children`, "utf8")
    .split(" ")
    .filter((pid) => pid && readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("workerd"));

// Clock ticks, of which Linux counts 100 in a second.
function ticks(pid) {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

let number = 0;
function signedRequests() {
  const timestamp = Math.floor(Date.now() / 1000);
  return Array.from({ length: EVENTS }, () => {
    number += 1;
    const object = { ...subscription, id: `sub_${number}` };
    const body = JSON.stringify({
      id: `evt_${number}`,
      object: "event",
      created: timestamp,
      data: { object },
      livemode: false,
      type: "customer.subscription.updated",
    });
    const signature = createHmac("sha256", SECRET).update(`${timestamp}.${body}`).digest("hex");
    return { body, signature: `t=${timestamp},v1=${signature}` };
  });
}

function post(url, agent, { body, signature }) {
  return new Promise((resolve, reject) => {
    const headers = { "stripe-signature": signature, "content-length": Buffer.byteLength(body) };
    const request = httpRequest(new URL("/webhooks/stripe", url), { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => (response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`))));
    });
    request.on("error", reject);
    request.end(body);
  });
}

// Microseconds of processor time per event, from the first request to the last row.
async function measure({ url, database, pid }, table) {
  const requests = signedRequests();
  const count = async () => (await database.prepare(`SELECT count(*) AS n FROM ${table}`).first()).n;
  const expected = (await count()) + EVENTS;
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS });
  const before = ticks(pid);
  let next = 0;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      while (next < requests.length) await post(url, agent, requests[next++]);
    }),
  );
  for (let tries = 0; (await count()) < expected; tries++) {
    if (tries > 300) throw new Error(`only ${await count()} of ${expected} rows`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  agent.destroy();
  return ((ticks(pid) - before) * 10_000) / EVENTS;
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const running = {};
for (const [name, contestant] of Object.entries(contestants)) {
  running[name] = await start(contestant);
  await measure(running[name], contestant.table);
}
const ratios = [];
const costs = { floor: [], hookmill: [] };
for (let round = 0; round < ROUNDS; round++) {
  for (const [name, { table }] of Object.entries(contestants)) costs[name].push(await measure(running[name], table));
  ratios.push(costs.hookmill[round] / costs.floor[round]);
}
for (const { miniflare } of Object.values(running)) await miniflare.dispose();
const spread = `${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)}`;
console.log(`${EVENTS} events of ${signedRequests()[0].body.length} bytes over ${CONNECTIONS} connections, ${ROUNDS} rounds`);
console.log(`Worker CPU per event, to the floor: ${median(ratios).toFixed(2)} (rounds ${spread}); the bar is 1.25`);
