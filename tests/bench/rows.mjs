// A Worker that moves the body to the queue like the floor, and writes the rows that Hookmill writes with `preset = "stripe"`: one
// statement for each table and batch. It verifies nothing, orders nothing, and applies no event once. So its cost is that of the
// rows, and Hookmill's above it is that of the rest.
const milliseconds = (seconds) => (seconds == null ? null : seconds * 1000);
const flag = (value) => (value == null ? null : Number(value));
const json = (value) => (value == null ? null : JSON.stringify(value));

// An upsert of all columns, whose rows are arrays in the one parameter.
function upsert(table, key, columns) {
  const all = [...key, ...columns];
  return `INSERT INTO ${table} (${all.join(", ")})
    SELECT ${all.map((_, i) => `value ->> ${i}`).join(", ")} FROM json_each(?1) WHERE true
    ON CONFLICT (${key.join(", ")}) DO UPDATE SET ${columns.map((column) => `${column} = excluded.${column}`).join(", ")}`;
}

const LEDGER = upsert("events", ["source", "id", "generation"], ["type", "outcome", "received_at", "applied_at", "attempts", "secret", "rows"]);
const SUBSCRIPTIONS = upsert("subscriptions", ["id"], [
  "customer_id",
  "latest_invoice_id",
  "status",
  "price_id",
  "quantity",
  "currency",
  "current_period_start",
  "current_period_end",
  "cancel_at_period_end",
  "cancel_at",
  "canceled_at",
  "ended_at",
  "trial_end",
  "pause_collection",
  "paused_until",
  "account",
  "livemode",
  "metadata",
  "created",
  "_version",
  "_precedence",
  "_event_id",
  "_deleted",
]);
const ITEMS = upsert("subscription_items", ["subscription_id", "id"], [
  "price_id",
  "product_id",
  "quantity",
  "unit_amount",
  "currency",
  "interval",
  "interval_count",
  "current_period_start",
  "current_period_end",
  "metadata",
  "created",
  "_version",
  "_precedence",
  "_event_id",
]);
const LISTS = upsert("row_guards", ["table_name", "key"], ["version", "precedence", "event_id"]);

export default {
  async fetch(request, env) {
    await env.EVENTS.send(await request.text(), { contentType: "text" });
    return new Response('{"accepted":1}');
  },

  async queue(batch, env) {
    const now = Date.now();
    const [ledger, subscriptions, items, lists] = [[], [], [], []];
    for (const message of batch.messages) {
      const event = JSON.parse(message.body);
      const object = event.data.object;
      const [first] = object.items.data;
      const order = [event.created * 1_000_000, 0, event.id];
      const written = [["subscriptions", { id: object.id }], ["subscription_items", { subscription_id: object.id }]];
      ledger.push(["stripe", event.id, 0, event.type, "applied", now, now, 1, 0, JSON.stringify(written)]);
      subscriptions.push([
        object.id,
        object.customer,
        object.latest_invoice,
        object.status,
        first.price.id,
        first.quantity,
        object.currency,
        milliseconds(first.current_period_start),
        milliseconds(first.current_period_end),
        flag(object.cancel_at_period_end),
        milliseconds(object.cancel_at),
        milliseconds(object.canceled_at),
        milliseconds(object.ended_at),
        milliseconds(object.trial_end),
        json(object.pause_collection),
        milliseconds(object.pause_collection?.resumes_at),
        event.account ?? null,
        flag(object.livemode),
        json(object.metadata),
        milliseconds(object.created),
        ...order,
        0,
      ]);
      lists.push(["subscription_items", JSON.stringify([object.id]), ...order]);
      for (const { id, price, quantity, metadata, created, ...period } of object.items.data) {
        items.push([
          object.id,
          id,
          price.id,
          price.product,
          quantity ?? null,
          price.unit_amount,
          price.currency,
          price.recurring?.interval ?? null,
          price.recurring?.interval_count ?? null,
          milliseconds(period.current_period_start),
          milliseconds(period.current_period_end),
          json(metadata),
          milliseconds(created),
          ...order,
        ]);
      }
    }
    const rows = [[LEDGER, ledger], [SUBSCRIPTIONS, subscriptions], [LISTS, lists], [ITEMS, items]];
    await env.DB.batch(rows.map(([sql, values]) => env.DB.prepare(sql).bind(JSON.stringify(values))));
  },
};
