// Stands around the built consumer Worker and adds up what D1 says that its transactions read and wrote. Asked over HTTP, it
// tells, and begins anew.
import Worker from "./index.js";

const nothing = () => ({ transactions: 0, read: 0, written: 0 });
let rows = nothing();

// `worker` looks at the name of this class before it takes a binding.
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
    const told = rows;
    rows = nothing();
    return Response.json(told);
  }
}
