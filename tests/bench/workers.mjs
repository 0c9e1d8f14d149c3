// The Workers in workerd: CPU per event against a floor, a Worker that writes the same rows, and the usual Worker in the same run,
// and the rows that D1 reads and writes per event.
//
// CPU is the time that the process workerd spent on a processor, from the first request to the last row: ingress, queue,
// consumer and D1, with all that the local runtime itself does. `cargo xtask bench` runs this with the defaults below; a test
// runs a small form of it (tests/workers/bench.test.mjs), which ignores times.
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { Agent, request as httpRequest } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Miniflare, convertV4MiniflareOptions } from "miniflare";

const bench = dirname(fileURLToPath(import.meta.url));
const root = dirname(dirname(bench));
const SECRET = "whsec_for-the-benchmark";

// What `cargo xtask bench` measures.
const DEFAULTS = {
  // The folder of the built Workers, and what their configuration calls the secret of its source `stripe`.
  built: "target/workers-bench",
  secret: "STRIPE_WEBHOOK_SECRET",
  // Keys that the consumer needs for what runs each minute.
  keys: {},
  // Events in a measurement, which is a multiple of a batch; measurements of each contestant, in turn.
  events: 2000,
  rounds: 9,
  // Measurements before these, in which V8 compiles what runs often.
  warmup: 4,
  connections: 32,
  // Rows in each table, where that is little and where that is much.
  small: 1000,
  large: 200_000,
};

const BATCH = 100;
const text = (...path) => readFileSync(join(root, ...path), "utf8");
const statements = (sql) => sql.replace(/--.*$/gm, "").split(";").filter((statement) => statement.trim());

// Full-size `customer.subscription.updated` events, as tests/bench/events.rs makes them.
const { subscription } = JSON.parse(text("hookmill/samples/stripe.json"));
const NEW = 1_000_000;
const CREATED = 1_767_225_600;
const spread = (number) => (Math.imul(number, 2654435761) >>> 0).toString(16).padStart(8, "0");

let next = NEW;
// Every other event is about one of the subscriptions that the tables hold, each of the others about a new one.
function events(count, held) {
  const timestamp = Math.floor(Date.now() / 1000);
  const batch = { requests: [], added: [], subscriptions: new Set() };
  for (let i = 0; i < count; i++) {
    const number = next++;
    const isHeld = held > 0 && number % 2 === 0;
    const id = spread(isHeld ? (number / 2) % held : number);
    const [item] = subscription.items.data;
    const items = { ...subscription.items, data: [{ ...item, id: `si_${id}`, subscription: `sub_${id}` }] };
    const event = {
      id: `evt_${spread(number)}`,
      object: "event",
      api_version: "2026-10-28.endive",
      created: CREATED + number - NEW,
      data: { object: { ...subscription, id: `sub_${id}`, items } },
      livemode: false,
      pending_webhooks: 1,
      type: "customer.subscription.updated",
    };
    // Indented, as Stripe sends it.
    const body = JSON.stringify(event, null, 2);
    const signature = createHmac("sha256", SECRET).update(`${timestamp}.${body}`).digest("hex");
    batch.requests.push({ body, signature: `t=${timestamp},v1=${signature}` });
    batch.added.push(spread(number));
    batch.subscriptions.add(`sub_${id}`);
  }
  return batch;
}

const module = (name) => ({ type: "ESModule", path: `/${name}`, contents: text("tests/bench", name) });
const common = { compatibilityDate: "2026-11-01", modulesRoot: "/", d1Databases: { DB: "db" } };
const consuming = (queue, maxBatchTimeout) => ({
  queueConsumers: { [queue]: { maxBatchSize: BATCH, maxBatchTimeout, maxRetries: 3, retryDelay: 0 } },
});

// The tables of subscriptions, which the floor does not have.
const tables = { subscriptions: "subscriptions", items: "subscription_items" };

// A Worker by hand that is ingress and consumer in one. `seen` counts those of some events that took effect; the floor does not
// know their ids.
function byHand(name, contestant) {
  const worker = {
    ...common,
    name,
    modules: [module(`${name}.mjs`)],
    queueProducers: { EVENTS: { queueName: "events" } },
    ...consuming("events", 1),
    bindings: { STRIPE_WEBHOOK_SECRET: SECRET },
  };
  return { name, workers: [worker], ...contestant };
}

// Hookmill's Workers; `metered` adds up the rows that D1 reads and writes, and has batches gather for as long as they take.
function hookmill(name, { built, secret, keys }, held, metered = false) {
  const modules = (stage) => {
    const folder = join(root, built, stage);
    assert.ok(existsSync(folder), `there is no ${folder}: run this with \`cargo xtask bench\`, which builds it`);
    return [
      { type: "ESModule", path: "/index.js", contents: readFileSync(join(folder, "index.js"), "utf8") },
      { type: "CompiledWasm", path: "/index_bg.wasm", contents: readFileSync(join(folder, "index_bg.wasm")) },
    ];
  };
  const ingress = {
    ...common,
    name: "ingress",
    modules: modules("ingress"),
    r2Buckets: { BODIES: "bodies" },
    queueProducers: { EVENTS: { queueName: "events" } },
    bindings: { [secret]: SECRET },
  };
  const consumers = {
    ...common,
    name: "consumers",
    modules: metered ? [module("meter.mjs"), ...modules("consumers")] : modules("consumers"),
    r2Buckets: { BODIES: "bodies" },
    ...consuming("events", metered ? 30 : 1),
    queueProducers: { OUTBOX: { queueName: "outbox" } },
    bindings: keys,
  };
  const dlq = metered && {
    ...common,
    name: "dlq",
    modules: [module("meter.mjs"), ...modules("dlq")],
    r2Buckets: { BODIES: "bodies" },
    queueProducers: { REPLAYS: { queueName: "replays" }, JOBS: { queueName: "jobs" } },
  };
  return { name, workers: dlq ? [ingress, dlq, consumers] : [ingress, consumers], ...ownTables(held) };
}

// Hookmill's tables with rows.
function ownTables(held) {
  const migrations = readdirSync(join(root, "migrations")).filter((file) => file.endsWith(".sql")).sort();
  const schema = migrations.flatMap((file) => statements(text("migrations", file)));
  const seen = "SELECT count(*) AS n FROM events WHERE source = 'stripe' AND id IN (SELECT 'evt_' || value FROM json_each(?1))";
  return { schema, tables: { events: "events", ...tables, dead: "dead_letters" }, seen, held, ours: true };
}

// The running instances. A failure must end them, or node waits for them.
const instances = [];
async function stop() {
  await Promise.all(instances.splice(0).map((miniflare) => miniflare.dispose()));
}

// Starts one with filled tables.
async function start(contestant) {
  const logs = [];
  const options = {
    host: "127.0.0.1",
    port: 0,
    workers: contestant.workers,
    handleStructuredLogs: ({ level, message }) => ["warn", "error"].includes(level) && logs.push(message),
  };
  const miniflare = new Miniflare(convertV4MiniflareOptions(options));
  instances.push(miniflare);
  const url = await miniflare.ready;
  const database = await miniflare.getD1Database("DB", contestant.workers.at(-1).name);
  await database.batch(contestant.schema.map((statement) => database.prepare(statement)));
  // workerd is the new child process.
  const pid = children().find((child) => !known.has(child));
  known.add(pid);
  const running = { ...contestant, miniflare, url, database, pid, logs };
  if (contestant.ours) await fill(running, 0, contestant.held);
  return running;
}

// In steps, so that no statement takes long.
async function fill({ database }, from, to) {
  for (let first = from; first < to; first += 20_000) {
    const range = [first, Math.min(first + 20_000, to)];
    for (const sql of statements(text("tests/bench/fill.sql"))) await database.prepare(sql).bind(...range).run();
  }
}

const known = new Set();
const linux = process.platform === "linux";
function children() {
  if (!linux) return [];
  const all = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").split(" ");
  return all.filter((pid) => pid && readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("workerd"));
}

// Clock ticks: Linux has 100 per second.
function ticks(pid) {
  if (!linux) return NaN;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

function post(url, agent, { body, signature }) {
  return new Promise((resolve, reject) => {
    const headers = { "stripe-signature": signature, "content-length": Buffer.byteLength(body) };
    const request = httpRequest(new URL("/webhooks/stripe", url), { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => (response.statusCode === 200 ? resolve() : reject(new Error(`status ${response.statusCode}`))));
    });
    request.on("error", reject);
    request.setTimeout(60_000, () => request.destroy(new Error("no answer to a request in a minute")));
    request.end(body);
  });
}

const number = async (database, sql, ...values) => (await database.prepare(sql).bind(...values).first()).n;

// The number of rows in a contestant's tables.
async function counts({ database, tables }) {
  const found = {};
  for (const [what, table] of Object.entries(tables)) found[what] = await number(database, `SELECT count(*) AS n FROM ${table}`);
  return found;
}

// Sends events and waits for their rows: microseconds of processor time per event. Fails if any event is lost, applied twice
// or given up.
async function measure(running, count, connections) {
  const { name, url, database, pid, held, seen, ours, logs } = running;
  const batch = events(count, held);
  const before = await counts(running);
  const expected = { ...before, events: before.events + count };
  if ("subscriptions" in before) {
    const sql = "SELECT count(*) AS n FROM subscriptions WHERE id IN (SELECT value FROM json_each(?1))";
    const known = await number(database, sql, JSON.stringify([...batch.subscriptions]));
    expected.subscriptions += batch.subscriptions.size - known;
    expected.items += batch.subscriptions.size - known;
  }
  // Polling costs processor time too, so it reads only the rows of the last events.
  const last = batch.added.slice(-2 * connections);
  const there = async () =>
    seen
      ? (await number(database, seen, JSON.stringify(last))) === last.length
      : (await counts(running)).events === expected.events;
  const agent = new Agent({ keepAlive: true, maxSockets: connections });
  const start = ticks(pid);
  let sent = 0;
  const send = async () => {
    while (sent < count) await post(url, agent, batch.requests[sent++]);
  };
  await Promise.all(Array.from({ length: connections }, send));
  // A batch takes milliseconds: a minute in which no event takes effect is too long.
  for (let tries = 0, most = before.events; !(await there()); tries++) {
    if (tries === 300) {
      const found = (await counts(running)).events;
      const log = logs.slice(-5).join("\n") || "nothing";
      assert.ok(found > most, `${name}: ${found - before.events} of ${count} events took effect, and none in a minute. It logged: ${log}`);
      [tries, most] = [0, found];
    }
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  agent.destroy();
  const cost = ((ticks(pid) - start) * 10_000) / count;
  assert.deepEqual(await counts(running), expected, `${name}: the rows that are there, and those that should be`);
  // Hookmill's new rows are removed, so that its tables keep their size.
  if (ours) {
    const added = JSON.stringify(batch.added);
    for (const sql of statements(text("tests/bench/clear.sql"))) await database.prepare(sql).bind(added).run();
  }
  return cost;
}

// Rows that D1 reads and writes per event, in full batches, at tables of both sizes.
async function growth(options) {
  const { small, large, connections } = options;
  const running = await start(hookmill("metered", options, small, true));
  const consumers = await running.miniflare.getWorker("consumers");
  const dlq = await running.miniflare.getWorker("dlq");
  // The counts since the last call.
  const metered = async (worker) => (await worker.fetch("http://meter")).json();
  const meter = () => metered(consumers);
  // The work of the cron trigger in both Workers.
  const minute = async () => {
    let read = 0;
    for (const worker of [consumers, dlq]) {
      await metered(worker);
      await worker.scheduled({ cron: "* * * * *" });
      const { transactions, read: rows } = await metered(worker);
      // Without keys, the consumer has nothing to send and runs no query.
      const asks = worker === dlq || Object.keys(options.keys).length > 0;
      assert.equal(transactions > 0, asks, "whether the cron trigger asks the database");
      read += rows;
    }
    return read;
  };
  const measured = async (held) => {
    const count = 2 * BATCH;
    await meter();
    await measure({ ...running, held }, count, connections);
    const { transactions, read, written } = await meter();
    // Once a minute, another one has the counts of rows and API versions.
    assert.ok([0, 1].includes(transactions - count / BATCH), `a full batch is one transaction: ${transactions} for ${count} events`);
    return { read: read / count, written: written / count, minute: await minute() };
  };
  const few = await measured(small);
  await fill(running, small, large);
  const many = await measured(large);
  return { few, many };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

// Processor time per event of every contestant, in turn.
async function cpu(options, print) {
  const { rounds, warmup, connections, small, large } = options;
  const contestants = [
    byHand("floor", {
      schema: ["CREATE TABLE floor (id TEXT PRIMARY KEY, length INTEGER) WITHOUT ROWID"],
      tables: { events: "floor" },
      held: small,
    }),
    byHand("usual", {
      schema: statements(text("tests/bench/usual.sql")),
      tables: { events: "stripe_events", ...tables },
      seen: "SELECT count(*) AS n FROM stripe_events WHERE id IN (SELECT 'evt_' || value FROM json_each(?1))",
      held: small,
    }),
    byHand("rows", ownTables(small)),
    hookmill("few", options, small),
    hookmill("many", options, large),
  ];
  const running = [];
  for (const contestant of contestants) running.push(await start(contestant));
  const costs = Object.fromEntries(running.map(({ name }) => [name, []]));
  for (let round = 1 - warmup; round <= rounds; round++) {
    for (const contestant of running) {
      const cost = await measure(contestant, options.events, connections);
      if (round > 0) costs[contestant.name].push(cost);
    }
  }
  const ratio = (name, to) => {
    const ratios = costs[name].map((cost, round) => cost / costs[to][round]);
    return `${median(ratios).toFixed(2)} (rounds ${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`;
  };
  print(`Worker CPU per event with \`preset = "stripe"\`, to the floor: ${ratio("few", "floor")}; the bar is 1.6`);
  print(`  to a Worker that writes the same rows: ${ratio("few", "rows")}`);
  print(`  of that Worker, to the floor: ${ratio("rows", "floor")}`);
  print(`  to the usual Worker: ${ratio("few", "usual")}; the aim is 0.5`);
  print(`  of the usual Worker, to the floor: ${ratio("usual", "floor")}`);
  print(`  at ${large} rows to ${small}: ${ratio("many", "few")}; the bar is 1.2`);
  const each = Object.entries(costs).map(([name, cost]) => `${name} ${median(cost).toFixed(0)}`);
  print(`  microseconds per event, the local runtime's own included: ${each.join(", ")}`);
}

// Measures everything, prints it and returns the rows per event. `print` gets each line.
export async function run(given = {}, print = console.log) {
  const options = { ...DEFAULTS, ...given };
  const { rounds, connections, small, large } = options;
  const bytes = events(1, 0).requests[0].body.length;
  print(`${options.events} events of ${bytes} bytes over ${connections} connections in a measurement, ${rounds} rounds`);
  try {
    await cpu(options, print);
    await stop();
    const rows = await growth(options);
    for (const kind of ["read", "written"]) {
      const [few, many] = [rows.few[kind].toFixed(2), rows.many[kind].toFixed(2)];
      print(`D1 rows ${kind} per event: ${few} at ${small} rows, ${many} at ${large}`);
    }
    print(`D1 rows read each minute: ${rows.few.minute} at ${small} rows, ${rows.many.minute} at ${large}`);
    return rows;
  } finally {
    await stop();
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const sizes = ["events", "rounds", "warmup", "connections", "small", "large"];
  const options = Object.fromEntries(Object.keys(DEFAULTS).map((name) => [name, { type: "string" }]));
  const { values } = parseArgs({ options });
  for (const name of sizes) if (name in values) values[name] = Number(values[name]);
  await run(values);
}
