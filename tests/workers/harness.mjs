// Runs the three Workers in workerd for one test, which can inspect and break them over HTTP.
//
// The settings come from the Workers' own wrangler.toml, with shorter waits. The Workers are those that
// `cargo xtask test` built with tests/hookmill.toml baked in.
import { createServer } from "node:http";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Miniflare, Response, convertV4MiniflareOptions } from "miniflare";
import { unstable_readConfig as readConfig } from "wrangler";

const tests = dirname(dirname(fileURLToPath(import.meta.url)));
const root = dirname(tests);
const secrets = JSON.parse(process.env.HOOKMILL_TEST_SECRETS);

// The address of the providers' APIs, if this test has any.
const outbound = process.env.HOOKMILL_TEST_OUTBOUND;

// No Worker may depend on the names of its queues, which the user chooses.
const renamed = (queue) => queue && `another-${queue}`;

const faults = new Set();
let logs = "";

// What the transactions in D1 have cost since the test asked last.
const free = () => ({ trips: 0, read: 0, written: 0 });
let cost = free();

function worker(stage) {
  const config = readConfig({ config: join(root, stage, "worker/wrangler.toml") }, { hideWarnings: true });
  const built = join(root, "target/workers-test", stage);
  const consumers = config.queues.consumers ?? [];
  return {
    name: config.name,
    compatibilityDate: config.compatibility_date,
    compatibilityFlags: config.compatibility_flags,
    modulesRoot: "/",
    modules: [
      { type: "ESModule", path: "/shim.mjs", contents: readFileSync(join(tests, "workers/shim.mjs"), "utf8") },
      { type: "ESModule", path: "/memory.mjs", contents: readFileSync(join(tests, "workers/memory.mjs"), "utf8") },
      { type: "ESModule", path: "/index.js", contents: readFileSync(join(built, "index.js"), "utf8") },
      { type: "CompiledWasm", path: "/index_bg.wasm", contents: readFileSync(join(built, "index_bg.wasm")) },
    ],
    bindings: stage === "dlq" ? {} : secrets,
    outboundService: async (request) => {
      const { pathname, search } = new URL(request.url);
      const headers = Object.fromEntries(request.headers);
      const body = request.method === "GET" ? undefined : await request.text();
      const init = { method: request.method, headers, body };
      const response = await fetch(`http://${outbound}${pathname}${search}`, init);
      // A response without content must have no body, not even an empty one.
      const answer = response.status === 204 ? null : await response.arrayBuffer();
      return new Response(answer, { status: response.status, headers: response.headers });
    },
    queueProducers: Object.fromEntries((config.queues.producers ?? []).map((p) => [p.binding, { queueName: renamed(p.queue) }])),
    queueConsumers: Object.fromEntries(
      consumers.map((c) => [
        renamed(c.queue),
        {
          maxBatchSize: c.max_batch_size,
          maxBatchTimeout: 0.05,
          // As often as this is all that a test waits for when a consumer fails; in wrangler.toml it is the most there is.
          maxRetries: Math.min(c.max_retries, 5),
          retryDelay: 0,
          deadLetterQueue: renamed(c.dead_letter_queue),
        },
      ]),
    ),
    d1Databases: Object.fromEntries(config.d1_databases.map((d) => [d.binding, d.database_id])),
    ratelimits:
      stage === "ingress" ? { RATE_LIMIT_LIMITED: { namespace_id: "1", simple: { limit: 3, period: 10 } } } : {},
    r2Buckets: Object.fromEntries((config.r2_buckets ?? []).map((b) => [b.binding, b.bucket_name])),
    serviceBindings: {
      FAULTS: (request) => new Response(null, { status: faults.has(new URL(request.url).pathname.slice(1)) ? 503 : 200 }),
      METER: async (request) => {
        for (const [what, count] of Object.entries(await request.json())) cost[what] += count;
        return new Response(null);
      },
    },
  };
}

const workers = ["ingress", "consumers", "dlq"].map(worker);
const [ingress, consumers, dlq] = workers.map((w) => w.name);
const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    host: "127.0.0.1",
    port: 0,
    workers,
    handleStructuredLogs: (log) => {
      logs += `${log.level} ${log.message}\n`;
    },
    handleRuntimeStdio: (stdout, stderr) => {
      for (const stream of [stdout, stderr]) stream.on("data", (data) => (logs += data));
    },
  }),
);
const url = await miniflare.ready;
const database = await miniflare.getD1Database("DB", consumers);
const migrations = [join(root, "migrations"), join(tests, "migrations")].flatMap((folder) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(".sql"))
    .sort()
    .map((name) => join(folder, name)),
);
// No statement here contains a semicolon.
const statements = migrations.flatMap((path) => readFileSync(path, "utf8").replace(/--.*$/gm, "").split(";"));
await database.batch(statements.filter((statement) => statement.trim()).map((statement) => database.prepare(statement)));

// A text, or any other value that a queue may contain.
const message = (body) => {
  if (typeof body === "string") return { body, contentType: "text" };
  if (body.bytes) return { body: new Uint8Array(body.bytes), contentType: "bytes" };
  return { body: body.json, contentType: "json" };
};

const commands = {
  sql: async ({ sql }) => (await database.prepare(sql).raw()),
  enqueue: async ({ messages }) => {
    const queue = await miniflare.getQueueProducer("EVENTS", ingress);
    // The platform's maximum at a time.
    for (let first = 0; first < messages.length; first += 100) {
      const batch = messages.slice(first, first + 100);
      await queue.sendBatch(batch.map(message));
    }
    return null;
  },
  deliver: async ({ messages, consumers: count }) => {
    const consumer = await miniflare.getWorker(consumers);
    const batch = () =>
      messages.map((body, index) => ({ id: `message-${index}`, timestamp: new Date(), attempts: 1, body }));
    return Promise.all(Array.from({ length: count }, () => consumer.queue(renamed("hookmill-events"), batch())));
  },
  fault: async ({ fault, broken }) => {
    if (broken) faults.add(fault);
    else faults.delete(fault);
    return null;
  },
  objects: async () => {
    const bucket = await miniflare.getR2Bucket("BODIES", consumers);
    return (await bucket.list()).objects.map((object) => object.key);
  },
  logs: async () => logs,
  // The work of the cron trigger, every minute.
  minute: async () => {
    await dead.scheduled({ cron: "* * * * *" });
    return null;
  },
  // The same of the other Worker.
  consumer_minute: async () => {
    await (await miniflare.getWorker(consumers)).scheduled({ cron: "* * * * *" });
    return null;
  },
  cost: async () => {
    const last = cost;
    cost = free();
    return last;
  },
};

let cron;
if (process.env.HOOKMILL_TEST_CRON) {
  // Once a second, not once a minute. Without faults, messages have already woken the Workers for this work.
  const consumer = await miniflare.getWorker(consumers);
  cron = setInterval(() => consumer.scheduled({ cron: "* * * * *" }).catch(() => {}), 1000);
}

const control = createServer((request, response) => {
  let body = "";
  request.on("data", (chunk) => (body += chunk));
  request.on("end", async () => {
    try {
      const result = await commands[request.url.slice(1)](JSON.parse(body));
      response.end(JSON.stringify(result));
    } catch (error) {
      response.statusCode = 500;
      response.end(String(error?.stack ?? error));
    }
  });
});
// The admin API on a separate port, since its Worker has a separate address.
const dead = await miniflare.getWorker(dlq);
const hop = new Set(["connection", "content-length", "host", "transfer-encoding"]);
const admin = createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", async () => {
    try {
      // fetch does not support this method: Cloudflare answers it without the Worker.
      if (request.method === "TRACE") return response.writeHead(405, { allow: "GET, POST, DELETE" }).end();
      const headers = Object.fromEntries(Object.entries(request.headers).filter(([name]) => !hop.has(name)));
      const bodiless = ["GET", "HEAD"].includes(request.method) || parts.length === 0;
      const body = bodiless ? undefined : Buffer.concat(parts);
      const answer = await dead.fetch(`http://admin${request.url}`, { method: request.method, headers, body });
      response.writeHead(answer.status, Object.fromEntries(answer.headers));
      response.end(Buffer.from(await answer.arrayBuffer()));
    } catch (error) {
      response.statusCode = 502;
      response.end(String(error?.stack ?? error));
    }
  });
});
admin.listen(0, "127.0.0.1", () =>
  control.listen(0, "127.0.0.1", () => {
    const at = (server) => `127.0.0.1:${server.address().port}`;
    console.log(JSON.stringify({ workers: url.host, control: at(control), admin: at(admin) }));
  }),
);

// The test ends by closing our stdin.
process.stdin.resume();
process.stdin.on("end", async () => {
  clearInterval(cron);
  await miniflare.dispose();
  process.exit(0);
});
