// Wraps the built consumer Worker and adds up the rows that its transactions read and wrote, as D1 reports them. A request over
// HTTP returns the sums and resets them.
import Worker from "./index.js";

const nothing = () => ({ transactions: 0, read: 0, written: 0 });
let rows = nothing();

// `worker` checks the name of this class before it accepts a binding.
class D1Database {
  constructor(database) {
    this.prepare = (sql) => database.prepare(sql);
    this.batch = async (statements) => {
      const results = await database.batch(statements);
      rows.transactions += 1;
      for (const { meta } of results) {
        rows.read += meta.rows_read;
        rows.written += meta.rows_written;
      }
      return results;
    };
  }
}

export default class extends Worker {
  constructor(ctx, env) {
    super(ctx, { ...env, DB: new D1Database(env.DB) });
  }

  async fetch() {
    const sums = rows;
    rows = nothing();
    return Response.json(sums);
  }
}
