// Wraps a built Worker and breaks its bindings on request. The Worker itself is the deployed one.
import { wasm } from "./memory.mjs";
import Worker from "./index.js";

// `worker` checks the names of these classes before it accepts a binding.
class WorkerQueue {
  constructor(queue, broken) {
    this.send = async (...message) => {
      if (await broken("queue")) throw new Error("Queue is overloaded. Please back off. (10250)");
      return queue.send(...message);
    };
    this.sendBatch = async (...messages) => {
      if (await broken("queue")) throw new Error("Queue is overloaded. Please back off. (10250)");
      return queue.sendBatch(...messages);
    };
    this.metrics = () => queue.metrics();
  }
}

class D1Database {
  // `end` ends the invocation; `meter` takes what a transaction has cost.
  constructor(database, broken, end, meter) {
    const deadly = new WeakSet();
    this.prepare = (sql) => {
      const statement = database.prepare(sql);
      if (!sql.startsWith("-- rule")) return statement;
      const bind = (...values) => {
        const bound = statement.bind(...values);
        if (values.some((value) => value?.includes("deadly"))) deadly.add(bound);
        return bound;
      };
      return { bind };
    };
    this.batch = async (statements) => {
      if (await broken("store")) throw new Error("D1_ERROR: Network connection lost.");
      if (statements.some((statement) => deadly.has(statement)) && (await broken("deadly"))) {
        end();
        await new Promise(() => {});
      }
      const results = await database.batch(statements);
      const sum = (of) => results.reduce((all, { meta }) => all + meta[of], 0);
      await meter({ trips: 1, read: sum("rows_read"), written: sum("rows_written") });
      return results;
    };
  }
}

class R2Bucket {
  constructor(bucket, broken) {
    for (const method of ["get", "put", "delete"]) this[method] = (...of) => bucket[method](...of);
    this.list = async (options) => {
      const listed = await bucket.list(options);
      const age = (await broken("old-objects")) ? 40 * 86_400_000 : 0;
      const uploaded = ({ uploaded }) => new Date(uploaded.getTime() - age);
      return { ...listed, objects: listed.objects.map((object) => ({ key: object.key, uploaded: uploaded(object) })) };
    };
  }
}

const { Date } = globalThis;

// A clock that shows only quarters of an hour.
class Quarter extends Date {
  constructor(...of) {
    super(...(of.length > 0 ? of : [Quarter.now()]));
  }

  static now() {
    return Date.now() - (Date.now() % 900_000);
  }
}

// A local Analytics Engine stores nothing.
const metrics = { writeDataPoint: (point) => console.log(`data point ${JSON.stringify(point)}`) };

export default class extends Worker {
  constructor(ctx, env) {
    const broken = async (fault) => (await env.FAULTS.fetch(`http://faults/${fault}`)).status === 503;
    const wrapped = { ...env };
    if (env.EVENTS) wrapped.EVENTS = new WorkerQueue(env.EVENTS, broken);
    const meter = (cost) => env.METER.fetch("http://meter", { method: "POST", body: JSON.stringify(cost) });
    if (env.DB) wrapped.DB = new D1Database(env.DB, broken, () => this.end(), meter);
    if (env.BODIES) wrapped.BODIES = new R2Bucket(env.BODIES, broken);
    wrapped.METRICS = metrics;
    super(ctx, wrapped);
    this.broken = broken;
  }

  async scheduled(event) {
    if (await this.broken("quarterly")) globalThis.Date = Quarter;
    return super.scheduled(event);
  }

  async queue(batch) {
    if (batch.queue.endsWith("-events") && (await this.broken("consumer"))) {
      throw new Error("the consumer has ended");
    }
    // The platform's behavior if an invocation uses up its memory.
    const ended = new Promise((_, reject) => {
      this.end = () => reject(new Error("Worker exceeded memory limit."));
    });
    const done = await Promise.race([super.queue(batch), ended]);
    console.log(`wasm memory ${wasm.memory.buffer.byteLength}`);
    return done;
  }
}
